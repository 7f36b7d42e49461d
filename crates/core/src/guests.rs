//! The clients of the guests in workspaces.

use std::{sync::Arc, time::Duration};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::Hello;
use emergent_provider::{ByteStream, ProviderKind};
pub(crate) use emergent_sandbox::FIRST_ANSWER;
use emergent_sandbox::{NoAnswer, guest_of};
use emergent_store::WorkspaceRow;
use emergent_types::WorkspaceId;

use crate::{
    placement::providers::{Providers, Registered},
    workspace::{
        entry::{Entry, WorkspaceGuard},
        recheck_queue::RecheckQueue,
        registry::Registry,
    },
};

/// Makes clients of guests, and the entries of workspaces, which have such clients.
pub(crate) struct Guests {
    providers: Arc<Providers>,
    registry: Arc<Registry>,
    recheck: Arc<RecheckQueue>,
}

// === impl Guests ===

impl Guests {
    pub(crate) fn new(providers: Arc<Providers>, registry: Arc<Registry>, recheck: Arc<RecheckQueue>) -> Self {
        Self { providers, registry, recheck }
    }

    /// Makes a client for a workspace's guest, without a connection unless `first` is one.
    pub(crate) fn client(&self, provider: ProviderKind, workspace: WorkspaceId, first: Option<ByteStream>) -> Guest {
        let provider = self.providers.get(provider).map(|registered| Arc::clone(&registered.provider));
        let recheck = Arc::clone(&self.recheck);
        guest_of(provider, workspace, first, move || recheck.raise(workspace))
    }

    /// Makes the entry of a workspace and adds it to the registry.
    pub(crate) fn enter(&self, row: &WorkspaceRow) -> Arc<Entry> {
        let entry = self.entry(row);
        self.registry.insert(Arc::clone(&entry));
        entry
    }

    /// Makes the entry of a workspace that is yet to be made, and takes its guard, which nobody else has had.
    pub(crate) async fn enter_new(&self, row: &WorkspaceRow) -> WorkspaceGuard {
        let entry = self.entry(row);
        let guard = entry.guard().await;
        self.registry.insert(entry);
        guard
    }

    fn entry(&self, row: &WorkspaceRow) -> Arc<Entry> {
        Arc::new(Entry::new(row, || self.client(row.provider, row.id, None)))
    }
}

/// Waits until the guest has answered once, as long as its sandbox runs.
pub(crate) async fn first_answer(
    registered: &Registered,
    workspace: WorkspaceId,
    guest: &Guest,
    within: Duration,
) -> Result<Hello, GuestCallError> {
    let answer = emergent_sandbox::first_answer(registered.provider.as_ref(), workspace, guest, within).await;
    answer.map_err(NoAnswer::into_call)
}
