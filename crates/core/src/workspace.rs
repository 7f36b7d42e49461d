//! A workspace as callers see it, and the rules and records of the workspaces that this process drives.

pub(crate) mod activity;
pub(crate) mod admissions;
pub(crate) mod change;
pub(crate) mod entry;
pub(crate) mod fullness;
pub(crate) mod lookup;
pub(crate) mod messages;
pub(crate) mod recheck_queue;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod session_cache;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod transitions;
pub(crate) mod validate;

use emergent_store::{SessionRow, StateKind, WorkspaceRow};
use emergent_types::PullProgress;

/// A workspace: its row, with the facts that only this process knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// The workspace's row.
    pub row: WorkspaceRow,
    /// The progress of the image's pull, while it lasts.
    pub pull: Option<PullProgress>,
    /// The session that holds the workspace.
    pub attached: Option<SessionRow>,
}

impl Workspace {
    pub(crate) fn new(row: WorkspaceRow, pull: Option<PullProgress>) -> Self {
        Self { row, pull, attached: None }
    }

    /// Returns the state's name.
    pub fn word(&self) -> StateKind {
        if self.row.starting { StateKind::Starting } else { self.row.state.word() }
    }

    /// Returns the warnings, each of which names a property that is weaker than requested.
    pub fn warnings(&self) -> Vec<String> {
        self.row.warnings.iter().chain(&self.row.disk_warning).cloned().collect()
    }

    /// Returns the time from the request to the guest's first answer, in milliseconds.
    pub fn ready_in_ms(&self) -> Option<u64> {
        let ready_in = self.row.ready_at? - self.row.created_at;
        u64::try_from(ready_in.num_milliseconds()).ok()
    }
}
