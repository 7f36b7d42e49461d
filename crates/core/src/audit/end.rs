//! The ending of a step, in the words of the audit. A problem has the same name as in the API.

use std::borrow::Cow;

use emergent_provider::OperationError;
use emergent_store::AuditOutcome;

use crate::{NewWorkspaceError, NoRoom, SnapshotError, SnapshotUnusable, TransitionError};

/// The ending of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEnd {
    /// The outcome, as one word.
    pub outcome: AuditOutcome,
    /// The name of the problem that ended the step.
    pub problem: Option<Cow<'static, str>>,
}

// === impl AuditEnd ===

impl AuditEnd {
    /// The step succeeded.
    pub const OK: Self = Self { outcome: AuditOutcome::Ok, problem: None };

    /// The step was refused, which is no failure of the server.
    pub fn refused(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: AuditOutcome::Refused, problem: Some(problem.into()) }
    }

    /// The step failed.
    pub fn failed(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: AuditOutcome::Failed, problem: Some(problem.into()) }
    }
}

impl<T> From<&Result<T, TransitionError>> for AuditEnd {
    fn from(result: &Result<T, TransitionError>) -> Self {
        match result {
            Ok(_) => Self::OK,
            Err(error) => error.into(),
        }
    }
}

impl From<&TransitionError> for AuditEnd {
    fn from(error: &TransitionError) -> Self {
        match error {
            TransitionError::Disabled => Self::refused("workspaces-disabled"),
            TransitionError::NotFound => Self::refused("workspace-not-found"),
            TransitionError::WrongState { .. } => Self::refused("wrong-state"),
            TransitionError::LimitReached { .. } => Self::refused("limit-reached"),
            TransitionError::OverQuota { .. } => Self::refused("quota-reached"),
            TransitionError::NoProvider(_) => Self::failed("no-provider"),
            TransitionError::DestroyedLater(_) => Self::failed("engine-unavailable"),
            TransitionError::Engine { source, .. } => match source {
                OperationError::EngineUnavailable { .. } => Self::failed("engine-unavailable"),
                OperationError::Gone => Self::failed("wrong-state"),
                OperationError::Unsupported { .. } => Self::refused("unsupported-operation"),
                OperationError::Refused { .. } => Self::failed("engine-refused"),
            },
            TransitionError::Guest(_) => Self::failed("workspace-unreachable"),
            TransitionError::ShuttingDown => Self::refused("not-ready"),
            TransitionError::Store(_) => Self::failed("store-unavailable"),
        }
    }
}

impl From<&SnapshotUnusable> for AuditEnd {
    fn from(error: &SnapshotUnusable) -> Self {
        match error {
            SnapshotUnusable::NotFound => Self::refused("snapshot-not-found"),
            SnapshotUnusable::NotReady(_) | SnapshotUnusable::Elsewhere(_) => Self::refused("snapshot-unusable"),
        }
    }
}

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

impl From<&NewWorkspaceError> for AuditEnd {
    fn from(error: &NewWorkspaceError) -> Self {
        match error {
            NewWorkspaceError::Disabled => Self::refused("workspaces-disabled"),
            NewWorkspaceError::Draining { .. } => Self::refused("server-draining"),
            NewWorkspaceError::Invalid { .. } => Self::refused("invalid-value"),
            NewWorkspaceError::ImageNotAllowed { .. } => Self::refused("image-not-allowed"),
            NewWorkspaceError::NameTaken { .. } => Self::refused("name-taken"),
            NewWorkspaceError::LimitReached { .. } => Self::refused("limit-reached"),
            NewWorkspaceError::OverQuota { .. } => Self::refused("quota-reached"),
            NewWorkspaceError::NoRoom(NoRoom::Disk { .. }) => Self::refused("host-disk-full"),
            NewWorkspaceError::NoRoom(NoRoom::Tasks { .. }) => Self::refused("host-full"),
            NewWorkspaceError::NoProvider { .. } => Self::failed("no-provider"),
            NewWorkspaceError::Snapshot(error) => error.into(),
            NewWorkspaceError::IdempotencyMismatch => Self::refused("idempotency-mismatch"),
            NewWorkspaceError::ShuttingDown => Self::refused("not-ready"),
            NewWorkspaceError::Store(_) => Self::failed("store-unavailable"),
        }
    }
}
