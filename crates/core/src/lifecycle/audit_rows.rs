//! The audit's names of the operations on workspaces, and of the problems that end them.

use emergent_provider::OperationError;
use emergent_store::ErrorReason;

use super::{TransitionError, reconcile_action::ReconcileAction};
use crate::{
    audit::{Audit, AuditEnd, AuditSpan},
    workspace::{
        entry::Entry,
        transitions::{Decision, Operation},
    },
};

// === impl Audit ===

impl Audit {
    /// Records a step that has just happened to a workspace.
    pub(crate) fn note(&self, entry: &Entry, action: &str, ending: impl Into<AuditEnd>) {
        self.begin(entry.project, Some(entry.id), action).end(ending);
    }

    /// Begins the record of an operation on a workspace.
    pub(crate) fn begin_operation(&self, entry: &Entry, operation: Operation) -> AuditSpan {
        let step = match operation {
            Operation::Stop | Operation::Resume | Operation::Pause | Operation::Destroy(_) => operation.as_str(),
            Operation::Idle(action) => action.as_str(),
            Operation::Call => "restarted",
        };
        let act = self.begin(entry.project, Some(entry.id), step);
        match operation {
            Operation::Destroy(reason) => act.with("reason", reason.as_str()),
            Operation::Idle(_) => act.with("reason", "idle"),
            Operation::Stop | Operation::Resume | Operation::Pause | Operation::Call => act,
        }
    }

    /// Records that a workspace has ended by itself, or could not be made.
    pub(crate) fn note_end(&self, entry: &Entry, reason: ErrorReason) {
        let step = match reason {
            ErrorReason::Oom | ErrorReason::ProcessLimit | ErrorReason::DiskFull | ErrorReason::Killed => {
                reason.as_str()
            }
            ErrorReason::CreateFailed
            | ErrorReason::EngineUnavailable
            | ErrorReason::CreateInterrupted
            | ErrorReason::StartFailed
            | ErrorReason::EngineLost => "failed",
        };
        self.note(entry, step, AuditEnd::failed(reason.as_str()));
    }

    /// Begins the record of a correction that makes row and engine agree; `None` where there is nothing to record, or
    /// where the correction records itself.
    pub(crate) fn begin_correction(&self, entry: &Entry, action: &ReconcileAction) -> Option<AuditSpan> {
        let step = match action {
            ReconcileAction::Agree
            | ReconcileAction::Adopt
            | ReconcileAction::Abandon
            | ReconcileAction::Ended(_)
            | ReconcileAction::NotStarted
            | ReconcileAction::Lost => return None,
            ReconcileAction::Runs => "resume",
            ReconcileAction::IsPaused => "pause",
            ReconcileAction::IsStopped | ReconcileAction::FinishStop => "stop",
            ReconcileAction::FinishDestroy => "destroy",
        };
        Some(self.begin(entry.project, Some(entry.id), step).with("reason", "reconciled"))
    }
}

// === impl AuditSpan ===

impl AuditSpan {
    /// Ends the record of an operation.
    pub(crate) fn end_operation(self, operation: Operation, decision: Decision, result: &Result<(), TransitionError>) {
        match (operation, decision) {
            // The call itself is what was done, or refused.
            (Operation::Call, Decision::Nothing | Decision::Refuse(_)) => self.forget(),
            _ => self.end(result),
        }
    }
}

// === impl AuditEnd ===

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
