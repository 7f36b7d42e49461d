//! The phases in which a workspace may be, and the answer to each operation in them: the model for all answers.
//!
//! A fault can leave it open whether an operation happened, so the model is a set of phases. An answer that fits none
//! of them is a finding; one that fits some narrows the set.

use std::collections::BTreeSet;

use super::{
    answer::Answer,
    fault::Fault,
    possible::{Outcome, Possible, Stage},
};

/// The phase of a workspace, as its owner may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The workspace takes calls.
    Ready,
    /// Frozen by its owner or by somebody behind the server's back.
    Paused,
    /// Stopped; files kept.
    Stopped,
    /// Paused since nobody used it: the next call resumes it.
    Dozing,
    /// Stopped since nobody used it: the next call starts it.
    Asleep,
    /// The sandbox has ended by itself; files kept, and the next call starts the workspace again.
    Broken,
    /// The engine no longer has the workspace.
    Lost,
    /// The workspace was never made.
    Unmade,
    /// Gone.
    Destroyed,
}

/// The operations on a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Any call of a tool, of processes or of files.
    Call,
    /// Stop the workspace.
    Stop,
    /// Resume the workspace, from a stop, a pause, or a breakdown.
    Resume,
    /// Pause the workspace.
    Pause,
    /// Destroy the workspace.
    Destroy,
    /// Copy the workspace's files, into a snapshot.
    Copy,
    /// Make other workspaces of the workspace's files.
    Fork,
    /// Attach to the workspace, or call it, for a session that does not hold it.
    Contend,
    /// An operation that does not concern the sandbox.
    Aside,
}

/// The relation of an answer to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The answer is as expected.
    As(Outcome),
    /// The answer is a refusal that the limit on workspaces explains: nothing has changed.
    LimitReached,
    /// Only a fault explains the answer: the operation may or may not have happened.
    Excused,
}

/// The phases in which a workspace may be.
pub type Phases = Possible<Phase>;

/// The circumstances that may explain an answer, besides the phase.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Faults that were at work while the answer was awaited.
    pub faults: BTreeSet<Fault>,
    /// The limit on workspaces in use may have been reached.
    pub limit_may_be_reached: bool,
    /// The workspace's time is up: the server may be destroying it.
    pub expiring: bool,
}

// === impl Phase ===

impl Stage for Phase {
    type Op = Op;

    fn expects(self, op: Op) -> (Outcome, Self) {
        use Outcome::{Barred, Done, WrongState};
        match (op, self) {
            (Op::Destroy, _) => (Done, Self::Destroyed),
            (Op::Aside, _) => (Done, self),
            (_, Self::Lost | Self::Unmade | Self::Destroyed) => (WrongState, self),
            (Op::Call, Self::Ready | Self::Broken | Self::Dozing | Self::Asleep) | (Op::Resume, _) => {
                (Done, Self::Ready)
            }
            (Op::Stop, _) => (Done, Self::Stopped),
            (Op::Pause, Self::Ready | Self::Paused | Self::Dozing) => (Done, Self::Paused),
            (Op::Call, Self::Paused | Self::Stopped) | (Op::Pause, Self::Stopped | Self::Broken | Self::Asleep) => {
                (WrongState, self)
            }
            (Op::Copy | Op::Fork, _) => (Done, self),
            (Op::Contend, _) => (Barred, self),
        }
    }
}

impl Phase {
    /// Whether a call is answered, after a start if need be.
    pub fn takes_calls(self) -> bool {
        self.expects(Op::Call).0 == Outcome::Done
    }

    /// Whether the workspace has files that can be called for or copied.
    pub fn has_files(self) -> bool {
        self.expects(Op::Copy).0 == Outcome::Done
    }

    /// Whether the workspace has to be started before a call, which takes a place among those that may be in use.
    pub fn needs_start(self) -> bool {
        matches!(self, Self::Stopped | Self::Broken | Self::Asleep)
    }

    /// Whether the workspace counts among those that may be in use.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Ready | Self::Paused | Self::Dozing)
    }

    /// Returns the phase that a workspace's JSON shows; `None` while it is between two.
    pub fn shown(workspace: &serde_json::Value) -> Option<Self> {
        match workspace["state"].as_str()? {
            "ready" => Some(Self::Ready),
            "paused" if workspace["idle"]["resting"] == true => Some(Self::Dozing),
            "paused" => Some(Self::Paused),
            "stopped" if workspace["idle"]["resting"] == true => Some(Self::Asleep),
            "stopped" => Some(Self::Stopped),
            "destroyed" => Some(Self::Destroyed),
            "error" => match workspace["error"]["reason"].as_str()? {
                "killed" | "oom" | "start_failed" => Some(Self::Broken),
                "engine_lost" => Some(Self::Lost),
                _ => Some(Self::Unmade),
            },
            _ => None,
        }
    }
}

// === impl Phases ===

impl Phases {
    /// Takes note of the engine's death: all that ran may have ended.
    pub fn engine_died(&mut self) {
        if self.some(Phase::is_active) {
            self.or(Phase::Broken);
        }
    }

    /// Takes note that nobody may have used the workspace for so long that it rests in this phase.
    pub fn may_rest(&mut self, rest: Phase) {
        if self.may_be(Phase::Ready) {
            self.or(rest);
        }
    }

    /// Compares an answer with the model, and narrows or widens the set by it.
    ///
    /// # Errors
    /// The expected answers, in words.
    pub fn judge(&mut self, op: Op, answer: &Answer, around: &Circumstances) -> Result<Fit, String> {
        if let Some(outcome) = Outcome::of(answer).filter(|outcome| self.narrow(op, *outcome)) {
            return Ok(Fit::As(outcome));
        }
        let starts = matches!(op, Op::Call | Op::Resume) && self.some(Phase::needs_start);
        if (starts || op == Op::Fork) && around.limit_may_be_reached && answer.problem() == Some("limit-reached") {
            return Ok(Fit::LimitReached);
        }
        if around.excuse(answer) {
            self.widen(op);
            // What an operation that broke off has left may need a start that did not succeed.
            if starts || matches!(op, Op::Resume) {
                self.or(Phase::Broken);
            }
            return Ok(Fit::Excused);
        }
        Err(self.expected(op))
    }
}

// === impl Circumstances ===

impl Circumstances {
    /// Whether the circumstances explain an answer as bad as this one.
    pub fn excuse(&self, answer: &Answer) -> bool {
        // With the workspace, its session ends.
        let is_destroyed = || Fault::ContainerRemoved.excuses(answer) || answer.problem() == Some("session-ended");
        (self.expiring && is_destroyed()) || self.faults.iter().any(|fault| fault.excuses(answer))
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::soak::answer::example;

    fn calm() -> Circumstances {
        Circumstances::default()
    }

    #[test]
    fn a_call_to_a_stopped_workspace_must_be_refused() {
        let mut phases = Phases::only(Phase::Stopped);
        assert!(phases.judge(Op::Call, &example(StatusCode::OK, None), &calm()).is_err());
        let refusal = example(StatusCode::CONFLICT, Some("wrong-state"));
        assert_eq!(phases.judge(Op::Call, &refusal, &calm()), Ok(Fit::As(Outcome::WrongState)));
    }

    #[test]
    fn a_refusal_is_excused_only_while_its_fault_is_at_work() {
        let refusal = example(StatusCode::SERVICE_UNAVAILABLE, Some("engine-unavailable"));
        let mut phases = Phases::only(Phase::Ready);
        assert!(phases.judge(Op::Stop, &refusal, &calm()).is_err());
        let around = Circumstances { faults: BTreeSet::from([Fault::EngineKilled]), ..calm() };
        assert_eq!(phases.judge(Op::Stop, &refusal, &around), Ok(Fit::Excused));
        assert!(phases.may_be(Phase::Ready) && phases.may_be(Phase::Stopped));
    }

    #[test]
    fn an_answer_narrows_what_was_open() {
        let mut phases = Phases::only(Phase::Ready);
        phases.or(Phase::Stopped);
        phases.judge(Op::Call, &example(StatusCode::OK, None), &calm()).unwrap();
        assert!(phases.is(Phase::Ready));
    }

    #[test]
    fn what_rests_by_itself_is_resumed_by_a_call_and_what_its_owner_stopped_is_not() {
        let mut phases = Phases::only(Phase::Ready);
        phases.may_rest(Phase::Asleep);
        phases.judge(Op::Stop, &example(StatusCode::OK, None), &calm()).unwrap();
        phases.may_rest(Phase::Asleep);
        assert!(phases.judge(Op::Call, &example(StatusCode::OK, None), &calm()).is_err());
        let mut phases = Phases::only(Phase::Dozing);
        phases.judge(Op::Call, &example(StatusCode::OK, None), &calm()).unwrap();
        assert!(phases.is(Phase::Ready));
    }

    #[test]
    fn whoever_does_not_hold_a_workspace_must_be_told_so() {
        let mut phases = Phases::only(Phase::Paused);
        assert!(phases.judge(Op::Contend, &example(StatusCode::OK, None), &calm()).is_err());
        let refusal = example(StatusCode::CONFLICT, Some("workspace-attached"));
        assert_eq!(phases.judge(Op::Contend, &refusal, &calm()), Ok(Fit::As(Outcome::Barred)));
        assert!(phases.judge(Op::Call, &refusal, &calm()).is_err(), "its holder is let in");
    }

    #[test]
    fn what_is_destroyed_takes_nothing_but_another_destroy() {
        for op in [Op::Call, Op::Stop, Op::Resume, Op::Pause, Op::Copy, Op::Fork, Op::Contend] {
            assert_eq!(Phase::Destroyed.expects(op), (Outcome::WrongState, Phase::Destroyed));
        }
        assert_eq!(Phase::Destroyed.expects(Op::Destroy), (Outcome::Done, Phase::Destroyed));
    }
}
