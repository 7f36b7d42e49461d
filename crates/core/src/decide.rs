//! What an operation means in each state: every pair is decided here, and nowhere else.
//!
//! It is asked by whoever has the workspace's turn. `Stopping`, `Starting` and `Destroying` are then what an
//! operation has left that did not come to its end, and mean that it is taken up again.

use emergent_store::ErrorReason;

use crate::situation::Situation;

/// What can be asked of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Stop,
    Resume,
    Pause,
    Destroy,
    /// Make it ready for a call if that needs no decision of a person.
    Call,
}

/// What is then done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is so already.
    Nothing,
    Stop,
    Start,
    Unpause,
    Pause,
    Destroy,
    /// It makes no sense; the text says what to do instead.
    Refuse(&'static str),
}

const WAIT: &str = "wait until it is ready, or destroy it";
const RESUME_FIRST: &str = "resume it first";
const GONE: &str = "create another";
const GOING: &str = "it is being destroyed; create another";
const NEVER_MADE: &str = "it was never made; destroy it and create another";
const LOST: &str = "the engine no longer has it; destroy it and create another";

impl Operation {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] = [Self::Stop, Self::Resume, Self::Pause, Self::Destroy, Self::Call];

    /// The word for it in messages and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Destroy => "destroy",
            Self::Call => "call",
        }
    }
}

/// What an operation means for a workspace in this situation.
pub(crate) fn decide(operation: Operation, situation: Situation) -> Decision {
    match operation {
        Operation::Stop => stop(situation),
        Operation::Resume => resume(situation),
        Operation::Pause => pause(situation),
        Operation::Destroy => destroy(situation),
        Operation::Call => call(situation),
    }
}

fn stop(situation: Situation) -> Decision {
    match situation {
        Situation::Creating => Decision::Refuse(WAIT),
        Situation::Ready | Situation::Paused | Situation::Stopping | Situation::Starting => Decision::Stop,
        Situation::Stopped => Decision::Nothing,
        Situation::Destroying => Decision::Refuse(GOING),
        Situation::Destroyed => Decision::Refuse(GONE),
        Situation::Failed(reason) => match fate(reason) {
            Fate::Kept => Decision::Stop,
            Fate::NeverMade => Decision::Refuse(NEVER_MADE),
            Fate::Lost => Decision::Refuse(LOST),
        },
    }
}

fn resume(situation: Situation) -> Decision {
    match situation {
        Situation::Creating => Decision::Refuse(WAIT),
        Situation::Ready => Decision::Nothing,
        Situation::Paused => Decision::Unpause,
        Situation::Stopping | Situation::Stopped | Situation::Starting => Decision::Start,
        Situation::Destroying => Decision::Refuse(GOING),
        Situation::Destroyed => Decision::Refuse(GONE),
        Situation::Failed(reason) => start_again(reason),
    }
}

fn pause(situation: Situation) -> Decision {
    match situation {
        Situation::Creating => Decision::Refuse(WAIT),
        Situation::Ready => Decision::Pause,
        Situation::Paused => Decision::Nothing,
        Situation::Stopping | Situation::Stopped | Situation::Starting => Decision::Refuse(RESUME_FIRST),
        Situation::Destroying => Decision::Refuse(GOING),
        Situation::Destroyed => Decision::Refuse(GONE),
        Situation::Failed(reason) => match fate(reason) {
            Fate::Kept => Decision::Refuse(RESUME_FIRST),
            Fate::NeverMade => Decision::Refuse(NEVER_MADE),
            Fate::Lost => Decision::Refuse(LOST),
        },
    }
}

fn destroy(situation: Situation) -> Decision {
    match situation {
        Situation::Creating
        | Situation::Ready
        | Situation::Paused
        | Situation::Stopping
        | Situation::Stopped
        | Situation::Starting
        | Situation::Destroying
        | Situation::Failed(_) => Decision::Destroy,
        Situation::Destroyed => Decision::Nothing,
    }
}

fn call(situation: Situation) -> Decision {
    match situation {
        Situation::Creating => Decision::Refuse(WAIT),
        Situation::Ready => Decision::Nothing,
        Situation::Paused | Situation::Stopping | Situation::Stopped => Decision::Refuse(RESUME_FIRST),
        Situation::Starting => Decision::Start,
        Situation::Destroying => Decision::Refuse(GOING),
        Situation::Destroyed => Decision::Refuse(GONE),
        Situation::Failed(reason) => start_again(reason),
    }
}

fn start_again(reason: ErrorReason) -> Decision {
    match fate(reason) {
        Fate::Kept => Decision::Start,
        Fate::NeverMade => Decision::Refuse(NEVER_MADE),
        Fate::Lost => Decision::Refuse(LOST),
    }
}

/// What is left of a workspace that failed.
enum Fate {
    /// Its sandbox, not running, with its files.
    Kept,
    NeverMade,
    Lost,
}

fn fate(reason: ErrorReason) -> Fate {
    match reason {
        ErrorReason::Oom | ErrorReason::Killed | ErrorReason::StartFailed => Fate::Kept,
        ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted => Fate::NeverMade,
        ErrorReason::EngineLost => Fate::Lost,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn situation() -> impl Strategy<Value = Situation> {
        select(Situation::all().collect::<Vec<_>>())
    }

    /// Where a decision leads when the engine does as it is told.
    fn after(decision: Decision, situation: Situation) -> Situation {
        match decision {
            Decision::Nothing | Decision::Refuse(_) => situation,
            Decision::Stop => Situation::Stopped,
            Decision::Start | Decision::Unpause => Situation::Ready,
            Decision::Pause => Situation::Paused,
            Decision::Destroy => Situation::Destroyed,
        }
    }

    proptest! {
        #[test]
        fn repeating_an_operation_that_succeeded_does_nothing(
            operation in select(Operation::ALL.to_vec()),
            situation in situation(),
        ) {
            let first = decide(operation, situation);
            if !matches!(first, Decision::Refuse(_)) {
                prop_assert_eq!(decide(operation, after(first, situation)), Decision::Nothing);
            }
        }

        #[test]
        fn a_call_never_undoes_what_a_person_has_decided(situation in situation()) {
            let changes = !matches!(decide(Operation::Call, situation), Decision::Nothing | Decision::Refuse(_));
            let broke_by_itself = matches!(situation, Situation::Failed(_) | Situation::Starting);
            prop_assert!(!changes || broke_by_itself);
        }

        #[test]
        fn whatever_happens_a_workspace_can_be_destroyed(
            operations in prop::collection::vec(select(Operation::ALL.to_vec()), 0..12),
            start in situation(),
        ) {
            let end = operations.into_iter().fold(start, |at, operation| after(decide(operation, at), at));
            prop_assert_eq!(after(decide(Operation::Destroy, end), end), Situation::Destroyed);
        }

        #[test]
        fn what_is_destroyed_stays_so(operation in select(Operation::ALL.to_vec())) {
            prop_assert_eq!(after(decide(operation, Situation::Destroyed), Situation::Destroyed), Situation::Destroyed);
        }
    }
}
