//! The stages in which something may be, as its owner knows: normally one stage, and several after a fault has left it
//! open whether an operation happened.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
};

use super::answer::{Answer, is_of_guest};

/// The outcome of an operation, as its answer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The operation is done; a call has reached the workspace.
    Done,
    /// 409: the operation makes no sense in this stage of a workspace.
    WrongState,
    /// 409: the session that asks does not hold the workspace.
    Barred,
    /// 409: the snapshot cannot be used.
    Unusable,
    /// 404: there is no such snapshot.
    Missing,
}

/// A stage in the life of something, and the outcomes of operations in it.
pub trait Stage: Copy + Ord + Debug {
    /// The operations.
    type Op: Copy + Debug;

    /// Returns the outcome of an operation in this stage, and the stage that follows.
    fn expects(self, op: Self::Op) -> (Outcome, Self);
}

/// The stages in which something may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Possible<T>(BTreeSet<T>);

// === impl Possible ===

impl<T: Stage> Possible<T> {
    /// The set of this stage alone: it is certain.
    pub fn only(stage: T) -> Self {
        Self(BTreeSet::from([stage]))
    }

    /// The set of these stages: one of them it is.
    pub fn any(stages: impl IntoIterator<Item = T>) -> Self {
        Self(stages.into_iter().collect())
    }

    /// Whether the stage is possible.
    pub fn may_be(&self, stage: T) -> bool {
        self.0.contains(&stage)
    }

    /// Whether the stage is certain.
    pub fn is(&self, stage: T) -> bool {
        self.0.len() == 1 && self.may_be(stage)
    }

    /// Whether this holds in all possible stages.
    pub fn all(&self, holds: impl Fn(T) -> bool) -> bool {
        self.0.iter().all(|stage| holds(*stage))
    }

    /// Whether this holds in a possible stage.
    pub fn some(&self, holds: impl Fn(T) -> bool) -> bool {
        self.0.iter().any(|stage| holds(*stage))
    }

    /// Adds a stage that has become possible.
    pub fn or(&mut self, stage: T) {
        self.0.insert(stage);
    }

    /// Takes note of a stage that was shown; false when it was not possible.
    pub fn see(&mut self, stage: T) -> bool {
        let possible = self.may_be(stage);
        *self = Self::only(stage);
        possible
    }

    /// Takes note of the outcome of an operation: leaves the stages that fit, each as it is afterwards. False when none
    /// fits; then nothing has changed.
    pub fn narrow(&mut self, op: T::Op, outcome: Outcome) -> bool {
        let expected = self.0.iter().map(|stage| stage.expects(op));
        let next: BTreeSet<T> = expected.filter(|(expected, _)| *expected == outcome).map(|(_, next)| next).collect();
        if next.is_empty() {
            return false;
        }
        self.0 = next;
        true
    }

    /// Takes note of an operation that may or may not have happened.
    pub fn widen(&mut self, op: T::Op) {
        let after: Vec<T> = self.0.iter().map(|stage| stage.expects(op).1).collect();
        self.0.extend(after);
    }

    /// Returns the answers that an operation should have had, in words.
    pub fn expected(&self, op: T::Op) -> String {
        let expected: Vec<_> = self.0.iter().map(|stage| format!("{:?} in {stage:?}", stage.expects(op).0)).collect();
        format!("{op:?} should be {}", expected.join(" or "))
    }
}

impl<T: Stage> fmt::Display for Possible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|stage| format!("{stage:?}")).collect();
        f.write_str(&words.join("|"))
    }
}

// === impl Outcome ===

impl Outcome {
    /// Returns the outcome that an answer tells; `None` where it says nothing about the operation.
    pub fn of(answer: &Answer) -> Option<Self> {
        match answer.problem() {
            None if answer.is_success() => Some(Self::Done),
            Some("wrong-state") => Some(Self::WrongState),
            Some("workspace-attached" | "session-ended") => Some(Self::Barred),
            Some("snapshot-unusable") => Some(Self::Unusable),
            Some("snapshot-not-found") => Some(Self::Missing),
            Some(problem) if is_of_guest(problem) => Some(Self::Done),
            _ => None,
        }
    }
}
