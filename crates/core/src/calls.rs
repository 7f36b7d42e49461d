//! Calls to a workspace's guest: the session with the guest, and the output that is followed.

mod error;
pub(crate) mod guest_session;
mod output;
mod waiting;

use std::sync::Arc;

use emergent_store::ProjectId;
use emergent_types::WorkspaceId;

pub use self::error::{CallError, WorkspaceEnd};
use self::guest_session::{GuestSession, Purpose, refusal};
use crate::{
    foundation::Foundation,
    lifecycle::{Lifecycle, TransitionError},
    quota::host_guard::HostGuard,
    workspace::{
        entry::Entry,
        lookup::{Found, Lookup},
        state::WorkspaceStatus,
        transitions::{Operation, transition},
    },
};

/// Begins the calls to the guests of workspaces.
pub(crate) struct Calls {
    lookup: Lookup,
    host: Arc<HostGuard>,
    lifecycle: Arc<Lifecycle>,
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new(base: &Foundation, lifecycle: Arc<Lifecycle>) -> Self {
        Self { lookup: base.lookup.clone(), host: Arc::clone(&base.host), lifecycle }
    }

    /// Notes that a call has removed files of a workspace: one that is full is counted again at once.
    pub(crate) fn note_removal(&self, guest: &GuestSession) {
        self.host.note_removal(&guest.entry);
    }

    /// Returns the guest of a workspace; for one that takes calls, waits for nothing and reads no row.
    pub(crate) async fn guest(&self, project: ProjectId, id: WorkspaceId) -> Result<GuestSession, CallError> {
        let entry = self.entry(project, id).await?;
        self.session(entry).await
    }

    /// Returns the guest of a workspace for a call with this effect on the disk.
    pub(crate) async fn guest_for(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        purpose: Purpose,
    ) -> Result<GuestSession, CallError> {
        let entry = self.entry(project, id).await?;
        // Not started again only to be refused.
        match purpose {
            Purpose::Run => self.host.may_run(&entry).await?,
            Purpose::Write => self.host.may_write(&entry).await?,
        }
        self.session(entry).await
    }

    /// Finds a workspace; reads no row where this process drives the workspace.
    async fn entry(&self, project: ProjectId, id: WorkspaceId) -> Result<Arc<Entry>, CallError> {
        match self.lookup.find(project, id).await? {
            Found::Entry(entry) => Ok(entry),
            Found::Destroyed => Err(refusal(WorkspaceStatus::Destroyed)),
        }
    }

    /// Returns the guest of a workspace; first starts the workspace again if it had ended by itself.
    async fn session(&self, entry: Arc<Entry>) -> Result<GuestSession, CallError> {
        loop {
            if let Some(session) = GuestSession::begin(&entry) {
                return Ok(session);
            }
            // It may be brought to rest again before the call has begun; each time round, an operation has ended.
            self.awaken(&entry).await?;
        }
    }

    async fn awaken(&self, entry: &Arc<Entry>) -> Result<(), CallError> {
        let status = entry.status();
        if transition(Operation::Call, status).refused().is_some() {
            return Err(refusal(status));
        }
        match self.lifecycle.operate_on(Arc::clone(entry), Operation::Call).await {
            Ok(()) => Ok(()),
            Err(TransitionError::WrongState { .. }) => Err(refusal(entry.status())),
            Err(error) => Err(CallError::Restart(Box::new(error))),
        }
    }
}
