//! Changes a workspace while it lives: its name, its labels, its end, and what happens when nobody uses it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::ProviderKind;
use emergent_store::{Changed, IdleAction, IdlePolicy, ProjectId, WorkspaceChange, WorkspaceRow};
use emergent_types::WorkspaceId;

use crate::{
    ChangeError, IdleRequest,
    orchestrator::Orchestrator,
    workspace::validate::{InvalidField, idle, labels_are_fine, workspace_name_is_fine},
};

/// The changes of a workspace that a caller asks for; an absent one leaves the workspace as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceUpdate {
    /// Its name; `Some(None)` takes it away.
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

// === impl Orchestrator ===

impl Orchestrator {
    /// Changes a workspace. Nobody waits for operations on it that are under way.
    pub(crate) async fn update(
        &self,
        project: ProjectId,
        id: WorkspaceId,
        update: WorkspaceUpdate,
    ) -> Result<(), ChangeError> {
        let before = self.row(project, id).await?;
        let changed = self.store.workspaces_change(project, id, |row| self.change_of(row, update)).await?;
        let row = match changed {
            Changed::Row(row) => row,
            Changed::Gone => return Err(ChangeError::Gone { state: before.state.word() }),
            Changed::NameTaken(holder) => return Err(ChangeError::NameTaken { holder }),
        };
        if let Some(entry) = self.registry.get(id) {
            entry.activity.set_policy(row.idle);
        }
        tracing::info!(workspace = %id, "workspace is changed");
        Ok(())
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
            asked => Some(self.idle_policy(idle(asked, row.idle)?, asked, row.provider)?),
        };
        let expires_at = update.expiry.map(|expiry| end(expiry, row.created_at, Utc::now()));
        Ok(WorkspaceChange { name: update.name, labels, expires_at, idle })
    }

    /// A policy that the provider can carry out. What somebody asks for is refused where it cannot; what only the
    /// settings say is left out.
    pub(crate) fn idle_policy(
        &self,
        policy: IdlePolicy,
        asked: IdleRequest,
        provider: ProviderKind,
    ) -> Result<IdlePolicy, InvalidField> {
        let Some(registered) = self.providers.get(provider) else { return Ok(policy) };
        let capabilities = registered.provider.capabilities();
        let is_able = match policy.action {
            IdleAction::None => true,
            IdleAction::Pause => capabilities.pause,
            IdleAction::Stop => capabilities.persistence,
        };
        match asked.action {
            _ if is_able => Ok(policy),
            None => Ok(IdlePolicy { action: IdleAction::None, ..policy }),
            Some(action) => Err(InvalidField {
                field: "idle.action".to_owned(),
                message: format!(
                    "provider {provider} cannot {action} a workspace as it is set up; the list of providers says what it can"
                ),
            }),
        }
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
