//! One snapshot, as its owner knows it: its possible states, and the contents of a workspace that is made from it.

use serde_json::Value;

use super::{
    answer::Answer,
    phase::{Circumstances, Fit},
    possible::{Outcome, Possible, Stage},
    workspace::Contents,
};

/// The state of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Workspaces can be made from it.
    Whole,
    /// The snapshot was not taken: there is a row that says why.
    Failed,
    /// There is no such snapshot, or no longer.
    Gone,
}

/// The operations on a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Make a workspace from the snapshot.
    MakeFrom,
    /// Delete the snapshot.
    Delete,
}

/// The states in which a snapshot may be.
pub type States = Possible<State>;

/// The owner's knowledge of a snapshot.
#[derive(Debug, Clone)]
pub struct KnownSnapshot {
    /// The snapshot's id.
    pub id: String,
    /// The server that has the snapshot.
    pub server: usize,
    /// The states in which the snapshot may be.
    pub states: States,
    /// The contents of the snapshot.
    pub contents: Contents,
}

// === impl State ===

impl Stage for State {
    type Op = Use;

    fn expects(self, op: Use) -> (Outcome, Self) {
        match (op, self) {
            (_, Self::Gone) => (Outcome::Missing, self),
            (Use::MakeFrom, Self::Whole) => (Outcome::Done, self),
            (Use::MakeFrom, Self::Failed) => (Outcome::Unusable, self),
            (Use::Delete, Self::Whole | Self::Failed) => (Outcome::Done, Self::Gone),
        }
    }
}

impl State {
    /// Returns the state that an answer shows; `None` while the snapshot is between two, or if the answer says nothing.
    pub fn shown(answer: &Answer) -> Option<Self> {
        if answer.problem() == Some("snapshot-not-found") {
            return Some(Self::Gone);
        }
        answer.is_success().then(|| Self::of(&answer.json())).flatten()
    }

    fn of(snapshot: &Value) -> Option<Self> {
        match snapshot["state"].as_str()? {
            "ready" => Some(Self::Whole),
            "error" => Some(Self::Failed),
            _ => None,
        }
    }
}

// === impl States ===

impl States {
    /// Compares an answer with the model, and narrows or widens the set by it.
    ///
    /// # Errors
    /// The expected answers, in words.
    pub fn judge(&mut self, op: Use, answer: &Answer, around: &Circumstances) -> Result<Fit, String> {
        if let Some(outcome) = Outcome::of(answer).filter(|outcome| self.narrow(op, *outcome)) {
            return Ok(Fit::As(outcome));
        }
        if op == Use::MakeFrom && around.limit_may_be_reached && answer.problem() == Some("limit-reached") {
            return Ok(Fit::LimitReached);
        }
        if around.excuse(answer) {
            self.widen(op);
            return Ok(Fit::Excused);
        }
        Err(self.expected(op))
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::soak::{answer::example, fault::Fault};

    #[test]
    fn nothing_is_made_from_a_snapshot_that_was_not_taken() {
        let mut states = States::only(State::Failed);
        let around = Circumstances::default();
        assert!(states.judge(Use::MakeFrom, &example(StatusCode::CREATED, None), &around).is_err());
        let refusal = example(StatusCode::CONFLICT, Some("snapshot-unusable"));
        assert_eq!(states.judge(Use::MakeFrom, &refusal, &around), Ok(Fit::As(Outcome::Unusable)));
    }

    #[test]
    fn a_deletion_that_a_fault_broke_off_leaves_both_possible() {
        let mut states = States::only(State::Whole);
        let around = Circumstances { faults: [Fault::ServerKilled].into(), ..Circumstances::default() };
        let nothing = Answer::Nothing("reset".to_owned());
        assert_eq!(states.judge(Use::Delete, &nothing, &around), Ok(Fit::Excused));
        assert!(states.may_be(State::Whole) && states.may_be(State::Gone));
    }
}
