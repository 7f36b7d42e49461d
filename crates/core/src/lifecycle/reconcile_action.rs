//! Decides the correction of a difference between a workspace's row and the engine.
//!
//! The row holds the wanted state, the engine the actual one. A running sandbox is never ended unless its row says so,
//! and a sandbox that was never `ready` is of no use to anybody.

use emergent_provider::{EngineState, ExitReason};
use emergent_store::ErrorReason;

use crate::workspace::state::WorkspaceStatus;

/// The correction that makes row and engine agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReconcileAction {
    /// Do nothing: row and engine agree.
    Agree,
    /// Make the workspace ready if its guest answers: the sandbox of an interrupted create runs.
    Adopt,
    /// Remove the remains of a create, and record the failure in the row.
    Abandon,
    /// Set the row to `ready`.
    Runs,
    /// Set the row to `paused`.
    IsPaused,
    /// Set the row to `stopped`.
    IsStopped,
    /// Continue the stop.
    FinishStop,
    /// Continue the destruction.
    FinishDestroy,
    /// Set the row to `error`: the sandbox ended by itself. Its files are kept.
    Ended(ExitReason),
    /// Set the row to `error`: a start did not come to its end. The files are kept.
    NotStarted,
    /// Set the row to `error`: there is no sandbox.
    Lost,
}

// === impl ReconcileAction ===

impl ReconcileAction {
    /// Decides on a workspace of this status; `engine` is the sandbox's state in the engine, if there is a sandbox.
    pub(crate) fn choose(status: WorkspaceStatus, engine: Option<&EngineState>) -> Self {
        match status {
            WorkspaceStatus::Creating => creating(engine),
            WorkspaceStatus::Ready => match engine {
                Some(EngineState::Running) => Self::Agree,
                Some(EngineState::Paused) => Self::IsPaused,
                Some(EngineState::Exited(reason)) => Self::Ended(reason.clone()),
                // A sandbox that was ready and now was never started was made anew by a stranger.
                Some(EngineState::Created | EngineState::Remains) | None => Self::Lost,
            },
            WorkspaceStatus::Paused(_) => match engine {
                Some(EngineState::Running) => Self::Runs,
                Some(EngineState::Paused) => Self::Agree,
                Some(EngineState::Exited(reason)) => Self::Ended(reason.clone()),
                Some(EngineState::Created | EngineState::Remains) | None => Self::Lost,
            },
            WorkspaceStatus::Stopping(_) => match engine {
                Some(EngineState::Running | EngineState::Paused) => Self::FinishStop,
                Some(EngineState::Exited(_) | EngineState::Created) => Self::IsStopped,
                Some(EngineState::Remains) | None => Self::Lost,
            },
            WorkspaceStatus::Stopped(_) => match engine {
                Some(EngineState::Running) => Self::Runs,
                Some(EngineState::Paused) => Self::IsPaused,
                Some(EngineState::Exited(_) | EngineState::Created) => Self::Agree,
                Some(EngineState::Remains) | None => Self::Lost,
            },
            WorkspaceStatus::Starting => match engine {
                Some(EngineState::Running) => Self::Runs,
                Some(EngineState::Paused) => Self::IsPaused,
                Some(EngineState::Exited(_) | EngineState::Created) => Self::NotStarted,
                Some(EngineState::Remains) | None => Self::Lost,
            },
            WorkspaceStatus::Destroying => Self::FinishDestroy,
            WorkspaceStatus::Destroyed => match engine {
                Some(_) => Self::FinishDestroy,
                None => Self::Agree,
            },
            WorkspaceStatus::Failed(reason) => failed(reason, engine),
        }
    }
}

fn creating(engine: Option<&EngineState>) -> ReconcileAction {
    match engine {
        Some(EngineState::Running) => ReconcileAction::Adopt,
        Some(EngineState::Created | EngineState::Paused | EngineState::Exited(_) | EngineState::Remains) | None => {
            ReconcileAction::Abandon
        }
    }
}

fn failed(reason: ErrorReason, engine: Option<&EngineState>) -> ReconcileAction {
    match reason {
        ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted => match engine {
            None => ReconcileAction::Agree,
            Some(_) => ReconcileAction::Abandon,
        },
        ErrorReason::Oom
        | ErrorReason::ProcessLimit
        | ErrorReason::DiskFull
        | ErrorReason::Killed
        | ErrorReason::StartFailed => match engine {
            Some(EngineState::Running) => ReconcileAction::Runs,
            Some(EngineState::Paused) => ReconcileAction::IsPaused,
            Some(EngineState::Exited(_) | EngineState::Created) => ReconcileAction::Agree,
            Some(EngineState::Remains) | None => ReconcileAction::Lost,
        },
        ErrorReason::EngineLost => match engine {
            Some(EngineState::Running) => ReconcileAction::Runs,
            Some(EngineState::Paused) => ReconcileAction::IsPaused,
            Some(EngineState::Exited(reason)) => ReconcileAction::Ended(reason.clone()),
            Some(EngineState::Created | EngineState::Remains) | None => ReconcileAction::Agree,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::state::SuspendReason;

    fn engine_states() -> [Option<EngineState>; 7] {
        [
            None,
            Some(EngineState::Created),
            Some(EngineState::Running),
            Some(EngineState::Paused),
            Some(EngineState::Exited(ExitReason::Code(137))),
            Some(EngineState::Exited(ExitReason::OutOfMemory)),
            Some(EngineState::Remains),
        ]
    }

    /// Returns the status and the engine's state after the action is carried out.
    fn after(
        action: ReconcileAction,
        status: WorkspaceStatus,
        engine: Option<EngineState>,
    ) -> (WorkspaceStatus, Option<EngineState>) {
        match action {
            ReconcileAction::Agree => (status, engine),
            ReconcileAction::Adopt | ReconcileAction::Runs => (WorkspaceStatus::Ready, engine),
            ReconcileAction::Abandon => (WorkspaceStatus::Failed(ErrorReason::CreateInterrupted), None),
            ReconcileAction::IsPaused => (WorkspaceStatus::Paused(SuspendReason::Asked), engine),
            ReconcileAction::IsStopped => (WorkspaceStatus::Stopped(SuspendReason::Asked), engine),
            ReconcileAction::FinishStop => {
                (WorkspaceStatus::Stopped(SuspendReason::Asked), Some(EngineState::Exited(ExitReason::Code(0))))
            }
            ReconcileAction::FinishDestroy => (WorkspaceStatus::Destroyed, None),
            ReconcileAction::Ended(_) => (WorkspaceStatus::Failed(ErrorReason::Killed), engine),
            ReconcileAction::NotStarted => (WorkspaceStatus::Failed(ErrorReason::StartFailed), engine),
            ReconcileAction::Lost => (WorkspaceStatus::Failed(ErrorReason::EngineLost), engine),
        }
    }

    #[test]
    fn carrying_an_action_out_once_is_enough() {
        for status in WorkspaceStatus::all() {
            for engine in engine_states() {
                let first = ReconcileAction::choose(status, engine.as_ref());
                let (then, left) = after(first.clone(), status, engine.clone());
                let second = ReconcileAction::choose(then, left.as_ref());
                assert_eq!(second, ReconcileAction::Agree, "{status:?} × {engine:?} → {first:?} → {then:?} × {left:?}");
            }
        }
    }

    #[test]
    fn what_was_ready_and_runs_is_never_ended() {
        for status in WorkspaceStatus::all() {
            let ends = matches!(
                ReconcileAction::choose(status, Some(&EngineState::Running)),
                ReconcileAction::Abandon | ReconcileAction::FinishStop | ReconcileAction::FinishDestroy
            );
            let wanted = match status {
                WorkspaceStatus::Stopping(_) | WorkspaceStatus::Destroying | WorkspaceStatus::Destroyed => true,
                WorkspaceStatus::Failed(
                    ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted,
                ) => true,
                WorkspaceStatus::Creating
                | WorkspaceStatus::Ready
                | WorkspaceStatus::Paused(_)
                | WorkspaceStatus::Stopped(_)
                | WorkspaceStatus::Starting
                | WorkspaceStatus::Failed(_) => false,
            };
            assert_eq!(ends, wanted, "{status:?}");
        }
    }
}
