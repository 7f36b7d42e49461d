//! Where something may stand, as whoever owns it knows: normally in one stage, and in several after a fault has left it
//! open whether an operation happened.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
};

use super::answer::{Answer, is_of_guest};

/// What an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; a call has reached the workspace.
    Done,
    /// 409: it makes no sense in this stage of a workspace.
    WrongState,
    /// 409: the session that asks does not hold the workspace.
    Barred,
    /// 409: the snapshot cannot be used.
    Unusable,
    /// 404: there is no such snapshot.
    Missing,
}

/// A stage in the life of something, and what operations do then.
pub trait Stage: Copy + Ord + Debug {
    /// What can be asked of it.
    type Op: Copy + Debug;

    /// What an operation answers in this stage, and what stage follows.
    fn expects(self, op: Self::Op) -> (Outcome, Self);
}

/// The stages in which something may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Possible<T>(BTreeSet<T>);

// === impl Possible ===

impl<T: Stage> Possible<T> {
    /// Certainly this one.
    pub fn only(stage: T) -> Self {
        Self(BTreeSet::from([stage]))
    }

    /// One of these.
    pub fn any(stages: impl IntoIterator<Item = T>) -> Self {
        Self(stages.into_iter().collect())
    }

    /// Whether it may be this one.
    pub fn may_be(&self, stage: T) -> bool {
        self.0.contains(&stage)
    }

    /// Whether it is certainly this one.
    pub fn is(&self, stage: T) -> bool {
        self.0.len() == 1 && self.may_be(stage)
    }

    /// Whether this holds wherever it may stand.
    pub fn all(&self, holds: impl Fn(T) -> bool) -> bool {
        self.0.iter().all(|stage| holds(*stage))
    }

    /// Whether this holds somewhere where it may stand.
    pub fn some(&self, holds: impl Fn(T) -> bool) -> bool {
        self.0.iter().any(|stage| holds(*stage))
    }

    /// Adds what may have become of it.
    pub fn or(&mut self, stage: T) {
        self.0.insert(stage);
    }

    /// Takes note of a stage that was shown; false when it could not be.
    pub fn see(&mut self, stage: T) -> bool {
        let possible = self.may_be(stage);
        *self = Self::only(stage);
        possible
    }

    /// An operation was answered so: leaves what fits, each as it is afterwards. False when nothing does; then nothing
    /// has changed.
    pub fn narrow(&mut self, op: T::Op, outcome: Outcome) -> bool {
        let expected = self.0.iter().map(|stage| stage.expects(op));
        let next: BTreeSet<T> = expected.filter(|(expected, _)| *expected == outcome).map(|(_, next)| next).collect();
        if next.is_empty() {
            return false;
        }
        self.0 = next;
        true
    }

    /// An operation may or may not have happened.
    pub fn widen(&mut self, op: T::Op) {
        let after: Vec<T> = self.0.iter().map(|stage| stage.expects(op).1).collect();
        self.0.extend(after);
    }

    /// What an operation should have answered, in words.
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
    /// What an answer says about the operation, where it says anything.
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
