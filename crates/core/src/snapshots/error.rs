//! The errors of snapshots: of taking, showing and deleting them, and of forking a workspace.

use emergent_provider::OperationError;
use emergent_store::StoreError;

use crate::{
    audit::AuditEnd,
    creation::{NewWorkspaceError, SnapshotUnusable},
    lifecycle::TransitionError,
    workspace::{lookup::LookupError, validate::InvalidField},
};

/// The reason for which a snapshot was not taken, shown or deleted, or a workspace not forked.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The workspace is not there, or cannot be copied now.
    #[error(transparent)]
    Workspace(#[from] TransitionError),
    /// The request asks for something that cannot be; nothing was made.
    #[error(transparent)]
    Request(#[from] NewWorkspaceError),
    /// The snapshot is not there, or not here.
    #[error(transparent)]
    Unusable(#[from] SnapshotUnusable),
    /// The engine could not delete it.
    #[error("the engine could not delete the snapshot")]
    Delete(#[source] OperationError),
    /// The store failed.
    #[error("the snapshot could not be recorded or looked up")]
    Store(#[from] StoreError),
}

// === impl SnapshotError ===

impl From<InvalidField> for SnapshotError {
    fn from(error: InvalidField) -> Self {
        Self::Request(error.into())
    }
}

impl From<LookupError> for SnapshotError {
    fn from(error: LookupError) -> Self {
        Self::Workspace(error.into())
    }
}

// === impl AuditEnd ===

impl<T> From<&Result<T, SnapshotError>> for AuditEnd {
    fn from(result: &Result<T, SnapshotError>) -> Self {
        match result {
            Ok(_) => Self::OK,
            Err(SnapshotError::Workspace(error)) => error.into(),
            Err(SnapshotError::Request(error)) => error.into(),
            Err(SnapshotError::Unusable(error)) => error.into(),
            Err(SnapshotError::Delete(_)) => Self::failed("engine-refused"),
            Err(SnapshotError::Store(_)) => Self::failed("store-unavailable"),
        }
    }
}
