//! Decides the effect of an operation in each state. Every pair of operation and state is decided here, and nowhere
//! else.
//!
//! The caller has the workspace's guard. `Stopping`, `Starting` and `Destroying` are then the traces of an operation
//! that did not come to its end, and the decision is to continue that operation.

use emergent_store::{DestroyReason, ErrorReason, IdleAction};

use crate::workspace::state::{SuspendReason, WorkspaceStatus};

/// An operation that a caller or the service asks of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Stop,
    Resume,
    Pause,
    Destroy(DestroyReason),
    /// Puts the workspace to rest because nobody uses it.
    Idle(IdleAction),
    /// Makes the workspace ready for a call, unless a person paused or stopped it.
    Call,
}

/// The decision on an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The workspace is already in the wanted state.
    Nothing,
    /// The workspace rests already. The rest now counts as requested, so that a call no longer resumes it.
    Keep,
    Stop(SuspendReason),
    Start,
    Unpause,
    Pause(SuspendReason),
    Destroy(DestroyReason),
    /// The operation makes no sense in this state; the text tells the caller the right operation.
    Refuse(&'static str),
}

const WAIT: &str = "wait until it is ready, or destroy it";
const RESUME_FIRST: &str = "resume it first";
pub(crate) const GONE: &str = "create another";
const GOING: &str = "it is being destroyed; create another";
const NEVER_MADE: &str = "it was never made; destroy it and create another";
const LOST: &str = "the engine no longer has it; destroy it and create another";

impl Operation {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Stop,
        Self::Resume,
        Self::Pause,
        Self::Destroy(DestroyReason::Requested),
        Self::Idle(IdleAction::None),
        Self::Idle(IdleAction::Pause),
        Self::Idle(IdleAction::Stop),
        Self::Call,
    ];

    /// Returns the operation's name for messages and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Destroy(_) => "destroy",
            Self::Idle(_) => "idle",
            Self::Call => "call",
        }
    }
}

impl Decision {
    /// Returns the advice to the caller if the operation is refused.
    pub(crate) fn refused(self) -> Option<&'static str> {
        match self {
            Self::Refuse(advice) => Some(advice),
            Self::Nothing
            | Self::Keep
            | Self::Stop(_)
            | Self::Start
            | Self::Unpause
            | Self::Pause(_)
            | Self::Destroy(_) => None,
        }
    }
}

/// Decides the effect of an operation on a workspace of this status.
pub(crate) fn transition(operation: Operation, status: WorkspaceStatus) -> Decision {
    match operation {
        Operation::Stop => stop(status),
        Operation::Resume => resume(status),
        Operation::Pause => pause(status),
        Operation::Destroy(reason) => destroy(reason, status),
        Operation::Idle(action) => idle(action, status),
        Operation::Call => call(status),
    }
}

fn stop(status: WorkspaceStatus) -> Decision {
    match status {
        WorkspaceStatus::Creating => Decision::Refuse(WAIT),
        WorkspaceStatus::Ready
        | WorkspaceStatus::Paused(_)
        | WorkspaceStatus::Stopping(_)
        | WorkspaceStatus::Starting => Decision::Stop(SuspendReason::Asked),
        WorkspaceStatus::Stopped(SuspendReason::Asked) => Decision::Nothing,
        WorkspaceStatus::Stopped(SuspendReason::Idle) => Decision::Keep,
        WorkspaceStatus::Destroying => Decision::Refuse(GOING),
        WorkspaceStatus::Destroyed => Decision::Refuse(GONE),
        WorkspaceStatus::Failed(reason) => match fate(reason) {
            Fate::Kept => Decision::Stop(SuspendReason::Asked),
            Fate::NeverMade => Decision::Refuse(NEVER_MADE),
            Fate::Lost => Decision::Refuse(LOST),
        },
    }
}

fn resume(status: WorkspaceStatus) -> Decision {
    match status {
        WorkspaceStatus::Creating => Decision::Refuse(WAIT),
        WorkspaceStatus::Ready => Decision::Nothing,
        WorkspaceStatus::Paused(_) => Decision::Unpause,
        WorkspaceStatus::Stopping(_) | WorkspaceStatus::Stopped(_) | WorkspaceStatus::Starting => Decision::Start,
        WorkspaceStatus::Destroying => Decision::Refuse(GOING),
        WorkspaceStatus::Destroyed => Decision::Refuse(GONE),
        WorkspaceStatus::Failed(reason) => start_again(reason),
    }
}

fn pause(status: WorkspaceStatus) -> Decision {
    match status {
        WorkspaceStatus::Creating => Decision::Refuse(WAIT),
        WorkspaceStatus::Ready => Decision::Pause(SuspendReason::Asked),
        WorkspaceStatus::Paused(SuspendReason::Asked) => Decision::Nothing,
        WorkspaceStatus::Paused(SuspendReason::Idle) => Decision::Keep,
        WorkspaceStatus::Stopping(_) | WorkspaceStatus::Stopped(_) | WorkspaceStatus::Starting => {
            Decision::Refuse(RESUME_FIRST)
        }
        WorkspaceStatus::Destroying => Decision::Refuse(GOING),
        WorkspaceStatus::Destroyed => Decision::Refuse(GONE),
        WorkspaceStatus::Failed(reason) => match fate(reason) {
            Fate::Kept => Decision::Refuse(RESUME_FIRST),
            Fate::NeverMade => Decision::Refuse(NEVER_MADE),
            Fate::Lost => Decision::Refuse(LOST),
        },
    }
}

fn destroy(reason: DestroyReason, status: WorkspaceStatus) -> Decision {
    match status {
        WorkspaceStatus::Creating
        | WorkspaceStatus::Ready
        | WorkspaceStatus::Paused(_)
        | WorkspaceStatus::Stopping(_)
        | WorkspaceStatus::Stopped(_)
        | WorkspaceStatus::Starting
        | WorkspaceStatus::Destroying
        | WorkspaceStatus::Failed(_) => Decision::Destroy(reason),
        WorkspaceStatus::Destroyed => Decision::Nothing,
    }
}

/// Decides on a rest for idleness: only a running workspace is put to rest.
fn idle(action: IdleAction, status: WorkspaceStatus) -> Decision {
    match (status, action) {
        (WorkspaceStatus::Ready, IdleAction::Pause) => Decision::Pause(SuspendReason::Idle),
        (WorkspaceStatus::Ready, IdleAction::Stop) => Decision::Stop(SuspendReason::Idle),
        (WorkspaceStatus::Ready, IdleAction::None)
        | (
            WorkspaceStatus::Creating
            | WorkspaceStatus::Paused(_)
            | WorkspaceStatus::Stopping(_)
            | WorkspaceStatus::Stopped(_)
            | WorkspaceStatus::Starting
            | WorkspaceStatus::Destroying
            | WorkspaceStatus::Destroyed
            | WorkspaceStatus::Failed(_),
            IdleAction::None | IdleAction::Pause | IdleAction::Stop,
        ) => Decision::Nothing,
    }
}

fn call(status: WorkspaceStatus) -> Decision {
    match status {
        WorkspaceStatus::Creating => Decision::Refuse(WAIT),
        WorkspaceStatus::Ready => Decision::Nothing,
        WorkspaceStatus::Paused(SuspendReason::Asked)
        | WorkspaceStatus::Stopping(SuspendReason::Asked)
        | WorkspaceStatus::Stopped(SuspendReason::Asked) => Decision::Refuse(RESUME_FIRST),
        WorkspaceStatus::Paused(SuspendReason::Idle) => Decision::Unpause,
        WorkspaceStatus::Stopping(SuspendReason::Idle)
        | WorkspaceStatus::Stopped(SuspendReason::Idle)
        | WorkspaceStatus::Starting => Decision::Start,
        WorkspaceStatus::Destroying => Decision::Refuse(GOING),
        WorkspaceStatus::Destroyed => Decision::Refuse(GONE),
        WorkspaceStatus::Failed(reason) => start_again(reason),
    }
}

/// Returns whether a workspace of this status can be copied; the error tells the caller what to do instead.
pub(crate) fn copy(status: WorkspaceStatus) -> Result<(), &'static str> {
    match status {
        WorkspaceStatus::Ready | WorkspaceStatus::Paused(_) | WorkspaceStatus::Stopped(_) => Ok(()),
        WorkspaceStatus::Creating | WorkspaceStatus::Starting => Err(WAIT),
        WorkspaceStatus::Stopping(_) => Err("wait until it is stopped"),
        WorkspaceStatus::Destroying => Err(GOING),
        WorkspaceStatus::Destroyed => Err(GONE),
        WorkspaceStatus::Failed(reason) => match fate(reason) {
            Fate::Kept => Ok(()),
            Fate::NeverMade => Err(NEVER_MADE),
            Fate::Lost => Err(LOST),
        },
    }
}

fn start_again(reason: ErrorReason) -> Decision {
    match fate(reason) {
        Fate::Kept => Decision::Start,
        Fate::NeverMade => Decision::Refuse(NEVER_MADE),
        Fate::Lost => Decision::Refuse(LOST),
    }
}

/// The remains of a workspace that failed.
enum Fate {
    /// The sandbox, not running, with its files.
    Kept,
    NeverMade,
    Lost,
}

fn fate(reason: ErrorReason) -> Fate {
    match reason {
        ErrorReason::Oom
        | ErrorReason::ProcessLimit
        | ErrorReason::DiskFull
        | ErrorReason::Killed
        | ErrorReason::StartFailed => Fate::Kept,
        ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted => Fate::NeverMade,
        ErrorReason::EngineLost => Fate::Lost,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn status() -> impl Strategy<Value = WorkspaceStatus> {
        select(WorkspaceStatus::all().collect::<Vec<_>>())
    }

    /// Returns the status after a decision when the engine carries it out.
    fn after(decision: Decision, status: WorkspaceStatus) -> WorkspaceStatus {
        match decision {
            Decision::Nothing | Decision::Refuse(_) => status,
            Decision::Keep => match status {
                WorkspaceStatus::Paused(_) => WorkspaceStatus::Paused(SuspendReason::Asked),
                WorkspaceStatus::Stopped(_) => WorkspaceStatus::Stopped(SuspendReason::Asked),
                other => panic!("{other:?} is no rest"),
            },
            Decision::Stop(rest) => WorkspaceStatus::Stopped(rest),
            Decision::Start | Decision::Unpause => WorkspaceStatus::Ready,
            Decision::Pause(rest) => WorkspaceStatus::Paused(rest),
            Decision::Destroy(_) => WorkspaceStatus::Destroyed,
        }
    }

    fn rests_by(will: SuspendReason, status: WorkspaceStatus) -> bool {
        matches!(status, WorkspaceStatus::Paused(rest) | WorkspaceStatus::Stopping(rest) | WorkspaceStatus::Stopped(rest) if rest == will)
    }

    proptest! {
        #[test]
        fn repeating_an_operation_that_succeeded_does_nothing(
            operation in select(Operation::ALL.to_vec()),
            status in status(),
        ) {
            let first = transition(operation, status);
            if !matches!(first, Decision::Refuse(_)) {
                prop_assert_eq!(transition(operation, after(first, status)), Decision::Nothing);
            }
        }

        #[test]
        fn a_call_never_undoes_what_a_person_has_decided(status in status()) {
            let changes = !matches!(transition(Operation::Call, status), Decision::Nothing | Decision::Refuse(_));
            let broke_by_itself = matches!(status, WorkspaceStatus::Failed(_) | WorkspaceStatus::Starting);
            prop_assert!(!changes || broke_by_itself || rests_by(SuspendReason::Idle, status));
            prop_assert!(!(changes && rests_by(SuspendReason::Asked, status)));
        }

        #[test]
        fn what_rests_because_nobody_used_it_is_resumed_by_a_call(status in status()) {
            if rests_by(SuspendReason::Idle, status) {
                prop_assert_eq!(after(transition(Operation::Call, status), status), WorkspaceStatus::Ready);
            }
        }

        #[test]
        fn what_somebody_brings_to_rest_stays_there_whoever_calls(
            operation in select(vec![Operation::Stop, Operation::Pause]),
            status in status(),
        ) {
            let decision = transition(operation, status);
            if !matches!(decision, Decision::Refuse(_)) {
                let rests = after(decision, status);
                prop_assert!(rests_by(SuspendReason::Asked, rests));
                prop_assert!(matches!(transition(Operation::Call, rests), Decision::Refuse(_)));
            }
        }

        #[test]
        fn idling_touches_only_what_runs(
            action in select(vec![IdleAction::None, IdleAction::Pause, IdleAction::Stop]),
            status in status(),
        ) {
            let decision = transition(Operation::Idle(action), status);
            if status == WorkspaceStatus::Ready && action != IdleAction::None {
                prop_assert!(rests_by(SuspendReason::Idle, after(decision, status)));
            } else {
                prop_assert_eq!(decision, Decision::Nothing);
            }
        }

        #[test]
        fn whatever_happens_a_workspace_can_be_destroyed(
            operations in prop::collection::vec(select(Operation::ALL.to_vec()), 0..12),
            start in status(),
        ) {
            let end = operations.into_iter().fold(start, |at, operation| after(transition(operation, at), at));
            prop_assert_eq!(after(transition(Operation::Destroy(DestroyReason::Requested), end), end), WorkspaceStatus::Destroyed);
        }

        #[test]
        fn what_is_destroyed_stays_so(operation in select(Operation::ALL.to_vec())) {
            prop_assert_eq!(after(transition(operation, WorkspaceStatus::Destroyed), WorkspaceStatus::Destroyed), WorkspaceStatus::Destroyed);
        }
    }
}
