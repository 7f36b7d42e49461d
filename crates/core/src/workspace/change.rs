//! Changes of a live workspace: its name, labels, expiry and idle policy.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use emergent_store::{Changed, ProjectId, StateKind, Store, StoreError, WorkspaceChange, WorkspaceRow};
use emergent_types::WorkspaceId;

use crate::{
    placement::providers::Providers,
    workspace::{
        entry::Entry,
        lookup::{Lookup, LookupError},
        messages::name_taken,
        registry::Registry,
        request::IdleRequest,
        validate::{InvalidField, idle, idle_within, labels_are_fine, workspace_name_is_fine},
    },
};

/// The changes of a workspace that a caller asks for; an absent one leaves the workspace as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceUpdate {
    /// The workspace's name; `Some(None)` takes it away.
    pub name: Option<Option<String>>,
    /// Labels to set, and, with `None`, to take away; others stay.
    pub labels: BTreeMap<String, Option<String>>,
    /// When it may be destroyed.
    pub expiry: Option<Expiry>,
    /// The new policy for a workspace that nobody uses.
    pub idle: IdleRequest,
}

/// When a workspace may be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Not before somebody asks for it.
    Never,
    /// So long after its creation, which may be over.
    FromCreation(Duration),
    /// So long from now.
    FromNow(Duration),
}

/// Changes workspaces while they live.
pub(crate) struct Changes {
    store: Store,
    registry: Arc<Registry>,
    lookup: Lookup,
    providers: Arc<Providers>,
}

/// The reason for which a workspace was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The workspace was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The workspace is destroyed, or on its way there.
    #[error("a workspace in state {state} cannot be changed; create another")]
    Gone {
        /// The workspace's state.
        state: StateKind,
    },
    /// Another workspace of the project has the name.
    #[error("{}", name_taken(.holder))]
    NameTaken {
        /// That workspace.
        holder: WorkspaceId,
    },
    /// The workspace would become something that cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field that is to blame, such as `labels`.
        field: String,
        /// The values that the field takes.
        message: String,
    },
    /// The store failed.
    #[error("the change could not be recorded")]
    Store(#[from] StoreError),
}

impl From<InvalidField> for ChangeError {
    fn from(InvalidField { field, message }: InvalidField) -> Self {
        Self::Invalid { field, message }
    }
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(store: Store, registry: Arc<Registry>, lookup: Lookup, providers: Arc<Providers>) -> Self {
        Self { store, registry, lookup, providers }
    }

    /// Changes a workspace, and returns its row and, where this server drives it, its entry. Nobody waits for operations
    /// on it that are under way.
    pub(crate) async fn update(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        update: WorkspaceUpdate,
    ) -> Result<(WorkspaceRow, Option<Arc<Entry>>), ChangeError> {
        let before = self.lookup.row(project, id).await?;
        let changed = self.store.workspaces_change(project, id, |row| self.change_of(row, update)).await?;
        let row = match changed {
            Changed::Row(row) => row,
            Changed::Gone => return Err(ChangeError::Gone { state: before.state.word() }),
            Changed::NameTaken(holder) => return Err(ChangeError::NameTaken { holder }),
        };
        let entry = self.registry.get(id);
        if let Some(entry) = &entry {
            entry.activity.set_policy(row.idle);
        }
        tracing::info!(workspace = %id, "workspace is changed");
        Ok((*row, entry))
    }

    /// Returns the change that an update means for a workspace as it is.
    fn change_of(&self, row: &WorkspaceRow, update: WorkspaceUpdate) -> Result<WorkspaceChange, ChangeError> {
        if let Some(Some(name)) = &update.name {
            workspace_name_is_fine(name)?;
        }
        let labels = (!update.labels.is_empty()).then(|| merged(&row.labels, update.labels));
        if let Some(labels) = &labels {
            labels_are_fine(labels)?;
        }
        let idle = match update.idle {
            IdleRequest { action: None, after: None } => None,
            asked => {
                let policy = idle(asked, row.idle)?;
                Some(match self.providers.get(row.provider) {
                    Some(registered) => idle_within(policy, asked, row.provider, &registered.provider.capabilities())?,
                    None => policy,
                })
            }
        };
        let expires_at = update.expiry.map(|expiry| end(expiry, row.created_at, Utc::now()));
        Ok(WorkspaceChange { name: update.name, labels, expires_at, idle })
    }
}

fn merged(before: &BTreeMap<String, String>, changes: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    let mut labels = before.clone();
    for (key, value) in changes {
        match value {
            Some(value) => labels.insert(key, value),
            None => labels.remove(&key),
        };
    }
    labels
}

/// `None` for never, which is also what no calendar holds.
fn end(expiry: Expiry, created_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let after = |at: DateTime<Utc>, life| at.checked_add_signed(TimeDelta::from_std(life).ok()?);
    match expiry {
        Expiry::Never => None,
        Expiry::FromCreation(life) => after(created_at, life),
        Expiry::FromNow(life) => after(now, life),
    }
}
