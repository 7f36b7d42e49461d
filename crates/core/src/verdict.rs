//! Decides the correction of a difference between a workspace's row and the engine. Every pair is decided here, and
//! nowhere else.
//!
//! The row holds the wanted state, the engine the actual one. A running sandbox is never ended unless its row says so,
//! and a sandbox that was never `ready` is of no use to anybody.

use emergent_provider::{EngineState, ExitReason};
use emergent_store::ErrorReason;

use crate::situation::Situation;

/// The correction that makes row and engine agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
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

/// Decides on a workspace in this situation; `engine` is the sandbox's state in the engine, if there is a sandbox.
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

    /// Returns the situation and the engine's state after the verdict is carried out.
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
