//! Finds workspaces on behalf of a project.

use std::sync::Arc;

use emergent_store::{PageRequest, ProjectId, StateKind, Store, StoreError, WorkspaceRow};
use emergent_types::WorkspaceId;

use crate::workspace::{entry::Entry, registry::Registry};

/// Finds the workspaces of projects: those that this process drives, and the rows of all.
#[derive(Clone)]
pub(crate) struct Lookup {
    enabled: bool,
    store: Store,
    registry: Arc<Registry>,
}

/// The result of a look-up of a workspace.
pub(crate) enum Found {
    /// This process drives the workspace.
    Entry(Arc<Entry>),
    /// The workspace is destroyed: only its row is left.
    Destroyed,
}

/// The reason for which a workspace was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The project has no such workspace.
    #[error("there is no such workspace")]
    NotFound,
    /// The store failed.
    #[error("the workspace could not be looked up")]
    Store(#[from] StoreError),
}

/// The reason for which workspaces were not listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The page's limit is out of range.
    #[error("limit: 1 to {most}")]
    BadLimit {
        /// The most that a page has.
        most: u32,
    },
    /// The store failed.
    #[error("the workspaces could not be listed")]
    Store(#[from] StoreError),
}

// === impl Lookup ===

impl Lookup {
    /// Makes the look-up; `enabled` says whether workspaces may be used at all.
    pub(crate) fn new(enabled: bool, store: Store, registry: Arc<Registry>) -> Self {
        Self { enabled, store, registry }
    }

    /// Refuses everything while workspaces are switched off.
    pub(crate) fn check_enabled(&self) -> Result<(), LookupError> {
        if self.enabled { Ok(()) } else { Err(LookupError::Disabled) }
    }

    /// Checks a request for a page of a list.
    pub(crate) fn check_page(&self, page: PageRequest) -> Result<(), ListError> {
        if !self.enabled {
            return Err(ListError::Disabled);
        }
        check_limit(page)
    }

    /// Returns the entry of a project's workspace, if this process drives the workspace.
    pub(crate) fn entry(&self, project: ProjectId, id: WorkspaceId) -> Option<Arc<Entry>> {
        self.registry.get(id).filter(|entry| entry.project == project)
    }

    /// Finds a project's workspace.
    pub(crate) async fn find(&self, project: ProjectId, id: WorkspaceId) -> Result<Found, LookupError> {
        self.check_enabled()?;
        if let Some(entry) = self.registry.get(id) {
            return if entry.project == project { Ok(Found::Entry(entry)) } else { Err(LookupError::NotFound) };
        }
        match self.store.workspaces_get(project, id).await? {
            Some(row) if row.state.word() == StateKind::Destroyed => Ok(Found::Destroyed),
            // Another server's, or one whose create has recorded its row this very moment.
            Some(_) | None => Err(LookupError::NotFound),
        }
    }

    /// Returns the row of a project's workspace.
    pub(crate) async fn row(&self, project: ProjectId, id: WorkspaceId) -> Result<WorkspaceRow, LookupError> {
        self.check_enabled()?;
        self.store.workspaces_get(project, id).await?.ok_or(LookupError::NotFound)
    }
}

/// Checks the number of rows that a page is to have.
pub(crate) fn check_limit(page: PageRequest) -> Result<(), ListError> {
    if (1..=PageRequest::MOST).contains(&page.limit) {
        Ok(())
    } else {
        Err(ListError::BadLimit { most: PageRequest::MOST })
    }
}
