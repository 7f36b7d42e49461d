//! Fault points: steps at which the process kills itself, so that tests see what a crash there leaves behind.

use std::str::FromStr;

use emergent_provider::{CreateStep, DestroyStep, SnapshotStep, StopStep};

/// The step that kills the process once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(&'static str);

/// A text that names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no step is called {name:?}; there are {}", Fault::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownStep {
    name: String,
}

impl Fault {
    /// The names of all steps, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let create = CreateStep::ALL.iter().map(|step| step.name());
        let stop = StopStep::ALL.iter().map(|step| step.name());
        let destroy = DestroyStep::ALL.iter().map(|step| step.name());
        let snapshot = SnapshotStep::ALL.iter().map(|step| step.name());
        create.chain(stop).chain(destroy).chain(snapshot)
    }

    /// Kills this process if `step` is the one, as abruptly as a crash or the kernel would: nothing is unwound,
    /// nothing flushed.
    pub fn strike(self, step: &'static str) {
        if self.0 == step {
            // Nothing can stop SIGKILL, and if it could not be sent the test that asked for it fails by itself.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
        }
    }
}

impl FromStr for Fault {
    type Err = UnknownStep;

    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        Self::names().find(|name| *name == text).map(Self).ok_or_else(|| UnknownStep { name: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_can_be_a_fault() {
        for name in Fault::names() {
            assert_eq!(name.parse(), Ok(Fault(name)));
        }
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_known_ones() {
        let refusal = "create.nothing".parse::<Fault>().unwrap_err().to_string();
        assert!(refusal.contains("create.intent_recorded"), "{refusal}");
    }
}
