//! Where a workspace may stand, and what each operation then answers: the model that every answer is held against.
//!
//! A fault can leave it open whether an operation happened, so the model is a set of phases. An answer that fits none
//! of them is a finding; one that fits some narrows the set.

use std::{collections::BTreeSet, fmt};

use super::{
    answer::{Answer, is_of_guest},
    fault::Fault,
};

/// Where a workspace stands, as its owner may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It takes calls.
    Ready,
    /// Frozen by its owner or by somebody behind the server's back.
    Paused,
    /// Stopped; files kept.
    Stopped,
    /// Its sandbox has ended by itself; files kept, and the next call starts it again.
    Broken,
    /// The engine no longer has it.
    Lost,
    /// It was never made.
    Unmade,
    /// Gone.
    Destroyed,
}

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Any call of a tool, of processes or of files.
    Call,
    /// Stop it.
    Stop,
    /// Resume it, from a stop, a pause, or a breakdown.
    Resume,
    /// Pause it.
    Pause,
    /// Destroy it.
    Destroy,
}

/// What an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; a call has reached the workspace.
    Done,
    /// 409: it makes no sense in this phase.
    WrongState,
}

/// How an answer fits the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As expected.
    As(Outcome),
    /// A refusal that the limit on workspaces explains: nothing has changed.
    LimitReached,
    /// Only a fault explains it: the operation may or may not have happened.
    Excused,
}

/// The phases in which a workspace may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phases(BTreeSet<Phase>);

/// What may explain an answer besides the phase.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Faults that were at work while the answer was awaited.
    pub faults: BTreeSet<Fault>,
    /// As many workspaces as may be in use may have been.
    pub limit_may_be_reached: bool,
    /// Its time is up: the server may be destroying it.
    pub expiring: bool,
}

// === impl Phase ===

impl Phase {
    /// What an operation answers in this phase, and what phase follows.
    pub fn expects(self, op: Op) -> (Outcome, Self) {
        use Outcome::{Done, WrongState};
        match (op, self) {
            (Op::Call, Self::Ready | Self::Broken) => (Done, Self::Ready),
            (Op::Stop, Self::Ready | Self::Paused | Self::Stopped | Self::Broken) => (Done, Self::Stopped),
            (Op::Resume, Self::Ready | Self::Paused | Self::Stopped | Self::Broken) => (Done, Self::Ready),
            (Op::Pause, Self::Ready | Self::Paused) => (Done, Self::Paused),
            (Op::Destroy, _) => (Done, Self::Destroyed),
            (Op::Call, Self::Paused | Self::Stopped)
            | (Op::Pause, Self::Stopped | Self::Broken)
            | (_, Self::Lost | Self::Unmade | Self::Destroyed) => (WrongState, self),
        }
    }

    /// The word for it in the API.
    pub fn state(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Broken | Self::Lost | Self::Unmade => "error",
            Self::Destroyed => "destroyed",
        }
    }

    /// The phase that a workspace's JSON shows; `None` while it is between two.
    pub fn shown(workspace: &serde_json::Value) -> Option<Self> {
        match workspace["state"].as_str()? {
            "ready" => Some(Self::Ready),
            "paused" => Some(Self::Paused),
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
    /// Certainly this one.
    pub fn only(phase: Phase) -> Self {
        Self(BTreeSet::from([phase]))
    }

    /// Whether it may be this one.
    pub fn may_be(&self, phase: Phase) -> bool {
        self.0.contains(&phase)
    }

    /// Whether it is certainly this one.
    pub fn is(&self, phase: Phase) -> bool {
        self.0.len() == 1 && self.may_be(phase)
    }

    /// Adds what may have become of it.
    pub fn or(&mut self, phase: Phase) {
        self.0.insert(phase);
    }

    /// The engine has died: what ran may have ended.
    pub fn engine_died(&mut self) {
        if self.may_be(Phase::Ready) || self.may_be(Phase::Paused) {
            self.or(Phase::Broken);
        }
    }

    /// Takes note of a phase that was shown; false when it could not be.
    pub fn see(&mut self, phase: Phase) -> bool {
        let possible = self.may_be(phase);
        *self = Self::only(phase);
        possible
    }

    /// Holds an answer against the model, and narrows or widens the set by it.
    ///
    /// # Errors
    /// What was expected.
    pub fn judge(&mut self, op: Op, answer: &Answer, around: &Circumstances) -> Result<Fit, String> {
        let fitting = |outcome: Outcome| {
            let expected = self.0.iter().map(|phase| phase.expects(op));
            expected.filter(|(expected, _)| *expected == outcome).map(|(_, next)| next).collect::<BTreeSet<_>>()
        };
        if let Some(outcome) = outcome_of(answer) {
            let next = fitting(outcome);
            if !next.is_empty() {
                self.0 = next;
                return Ok(Fit::As(outcome));
            }
        }
        let starts = matches!(op, Op::Call | Op::Resume) && (self.may_be(Phase::Stopped) || self.may_be(Phase::Broken));
        if starts && around.limit_may_be_reached && answer.problem() == Some("limit-reached") {
            return Ok(Fit::LimitReached);
        }
        let is_destroyed_meanwhile = around.expiring && Fault::ContainerRemoved.excuses(answer);
        if is_destroyed_meanwhile || around.faults.iter().any(|fault| fault.excuses(answer)) {
            let after: Vec<Phase> = self.0.iter().map(|phase| phase.expects(op).1).collect();
            self.0.extend(after);
            // What an operation that broke off has left may need a start that did not succeed.
            if starts || matches!(op, Op::Resume) {
                self.or(Phase::Broken);
            }
            return Ok(Fit::Excused);
        }
        let expected: Vec<_> = self.0.iter().map(|phase| format!("{:?} in {phase:?}", phase.expects(op).0)).collect();
        Err(format!("{op:?} should be {}", expected.join(" or ")))
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|phase| format!("{phase:?}")).collect();
        f.write_str(&words.join("|"))
    }
}

/// What an answer says about the operation, where it says anything.
fn outcome_of(answer: &Answer) -> Option<Outcome> {
    match answer.problem() {
        None if answer.is_success() => Some(Outcome::Done),
        Some("wrong-state") => Some(Outcome::WrongState),
        Some(problem) if is_of_guest(problem) => Some(Outcome::Done),
        _ => None,
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
    fn what_is_destroyed_takes_nothing_but_another_destroy() {
        for op in [Op::Call, Op::Stop, Op::Resume, Op::Pause] {
            assert_eq!(Phase::Destroyed.expects(op), (Outcome::WrongState, Phase::Destroyed));
        }
        assert_eq!(Phase::Destroyed.expects(Op::Destroy), (Outcome::Done, Phase::Destroyed));
    }
}
