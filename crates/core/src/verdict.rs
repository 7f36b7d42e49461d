//! What a difference between a row and the engine means: every pair is decided here, and nowhere else.
//!
//! The row says what is wanted, the engine what there is. Nothing that runs is ended unless its row says so, and a
//! sandbox that was never `ready` is of no use to anybody.

use emergent_provider::{EngineState, ExitReason};
use emergent_store::ErrorReason;

use crate::situation::Situation;

/// What is to be done so that row and engine agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Agree,
    /// The sandbox of a create that was interrupted runs: if its guest answers, the workspace is ready.
    Adopt,
    /// What is left of a create goes, and the row says so.
    Abandon,
    /// The row becomes `ready`.
    Runs,
    /// The row becomes `paused`.
    IsPaused,
    /// The row becomes `stopped`.
    IsStopped,
    /// The stop is taken up again.
    FinishStop,
    /// The destruction is taken up again.
    FinishDestroy,
    /// The row becomes `error`: the sandbox ended by itself. Its files are kept.
    Ended(ExitReason),
    /// The row becomes `error`: a start did not come to its end. Its files are kept.
    NotStarted,
    /// The row becomes `error`: there is no sandbox.
    Lost,
}

/// What to do about a workspace in this situation when the engine has this of it.
pub(crate) fn verdict(situation: Situation, engine: Option<&EngineState>) -> Verdict {
    match situation {
        Situation::Creating => creating(engine),
        Situation::Ready => match engine {
            Some(EngineState::Running) => Verdict::Agree,
            Some(EngineState::Paused) => Verdict::IsPaused,
            Some(EngineState::Exited(reason)) => Verdict::Ended(reason.clone()),
            // A sandbox that was ready and now was never started was made anew by a stranger.
            Some(EngineState::Created | EngineState::Remains) | None => Verdict::Lost,
        },
        Situation::Paused(_) => match engine {
            Some(EngineState::Running) => Verdict::Runs,
            Some(EngineState::Paused) => Verdict::Agree,
            Some(EngineState::Exited(reason)) => Verdict::Ended(reason.clone()),
            Some(EngineState::Created | EngineState::Remains) | None => Verdict::Lost,
        },
        Situation::Stopping(_) => match engine {
            Some(EngineState::Running | EngineState::Paused) => Verdict::FinishStop,
            Some(EngineState::Exited(_) | EngineState::Created) => Verdict::IsStopped,
            Some(EngineState::Remains) | None => Verdict::Lost,
        },
        Situation::Stopped(_) => match engine {
            Some(EngineState::Running) => Verdict::Runs,
            Some(EngineState::Paused) => Verdict::IsPaused,
            Some(EngineState::Exited(_) | EngineState::Created) => Verdict::Agree,
            Some(EngineState::Remains) | None => Verdict::Lost,
        },
        Situation::Starting => match engine {
            Some(EngineState::Running) => Verdict::Runs,
            Some(EngineState::Paused) => Verdict::IsPaused,
            Some(EngineState::Exited(_) | EngineState::Created) => Verdict::NotStarted,
            Some(EngineState::Remains) | None => Verdict::Lost,
        },
        Situation::Destroying => Verdict::FinishDestroy,
        Situation::Destroyed => match engine {
            Some(_) => Verdict::FinishDestroy,
            None => Verdict::Agree,
        },
        Situation::Failed(reason) => failed(reason, engine),
    }
}

fn creating(engine: Option<&EngineState>) -> Verdict {
    match engine {
        Some(EngineState::Running) => Verdict::Adopt,
        Some(EngineState::Created | EngineState::Paused | EngineState::Exited(_) | EngineState::Remains) | None => {
            Verdict::Abandon
        }
    }
}

fn failed(reason: ErrorReason, engine: Option<&EngineState>) -> Verdict {
    match reason {
        ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted => match engine {
            None => Verdict::Agree,
            Some(_) => Verdict::Abandon,
        },
        ErrorReason::Oom
        | ErrorReason::ProcessLimit
        | ErrorReason::DiskFull
        | ErrorReason::Killed
        | ErrorReason::StartFailed => match engine {
            Some(EngineState::Running) => Verdict::Runs,
            Some(EngineState::Paused) => Verdict::IsPaused,
            Some(EngineState::Exited(_) | EngineState::Created) => Verdict::Agree,
            Some(EngineState::Remains) | None => Verdict::Lost,
        },
        ErrorReason::EngineLost => match engine {
            Some(EngineState::Running) => Verdict::Runs,
            Some(EngineState::Paused) => Verdict::IsPaused,
            Some(EngineState::Exited(reason)) => Verdict::Ended(reason.clone()),
            Some(EngineState::Created | EngineState::Remains) | None => Verdict::Agree,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::situation::Rest;

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

    /// Where a verdict leads when it is carried out.
    fn after(verdict: Verdict, situation: Situation, engine: Option<EngineState>) -> (Situation, Option<EngineState>) {
        match verdict {
            Verdict::Agree => (situation, engine),
            Verdict::Adopt | Verdict::Runs => (Situation::Ready, engine),
            Verdict::Abandon => (Situation::Failed(ErrorReason::CreateInterrupted), None),
            Verdict::IsPaused => (Situation::Paused(Rest::Asked), engine),
            Verdict::IsStopped => (Situation::Stopped(Rest::Asked), engine),
            Verdict::FinishStop => (Situation::Stopped(Rest::Asked), Some(EngineState::Exited(ExitReason::Code(0)))),
            Verdict::FinishDestroy => (Situation::Destroyed, None),
            Verdict::Ended(_) => (Situation::Failed(ErrorReason::Killed), engine),
            Verdict::NotStarted => (Situation::Failed(ErrorReason::StartFailed), engine),
            Verdict::Lost => (Situation::Failed(ErrorReason::EngineLost), engine),
        }
    }

    #[test]
    fn carrying_a_verdict_out_once_is_enough() {
        for situation in Situation::all() {
            for engine in engine_states() {
                let first = verdict(situation, engine.as_ref());
                let (then, left) = after(first.clone(), situation, engine.clone());
                let second = verdict(then, left.as_ref());
                assert_eq!(second, Verdict::Agree, "{situation:?} × {engine:?} → {first:?} → {then:?} × {left:?}");
            }
        }
    }

    #[test]
    fn what_was_ready_and_runs_is_never_ended() {
        for situation in Situation::all() {
            let ends = matches!(
                verdict(situation, Some(&EngineState::Running)),
                Verdict::Abandon | Verdict::FinishStop | Verdict::FinishDestroy
            );
            let wanted = match situation {
                Situation::Stopping(_) | Situation::Destroying | Situation::Destroyed => true,
                Situation::Failed(
                    ErrorReason::CreateFailed | ErrorReason::EngineUnavailable | ErrorReason::CreateInterrupted,
                ) => true,
                Situation::Creating
                | Situation::Ready
                | Situation::Paused(_)
                | Situation::Stopped(_)
                | Situation::Starting
                | Situation::Failed(_) => false,
            };
            assert_eq!(ends, wanted, "{situation:?}");
        }
    }
}
