//! The points at which a crash leaves something behind, named so that a test can crash there.

use std::str::FromStr;

/// The points that an operation passes, each named by what has been done by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkStep {
    /// The interface exists, and nothing on it says whose it is.
    TapCreated,
    /// The interface says whose it is.
    TapDescribed,
    /// The kernel's own settings of the interface are made.
    TapHardened,
    /// The machine's rules are in force.
    RulesSet,
    /// The interface has the host's address and is up.
    TapUp,
    /// The machine's rules are gone.
    RulesRemoved,
    /// The interface is gone.
    TapRemoved,
}

/// A text that names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no step is called so; there are {}", NetworkStep::ALL.map(NetworkStep::name).join(", "))]
pub struct UnknownStep;

// === impl NetworkStep ===

impl NetworkStep {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::TapCreated,
        Self::TapDescribed,
        Self::TapHardened,
        Self::RulesSet,
        Self::TapUp,
        Self::RulesRemoved,
        Self::TapRemoved,
    ];

    /// Returns the step's name, `operation.step`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TapCreated => "attach.tap_created",
            Self::TapDescribed => "attach.tap_described",
            Self::TapHardened => "attach.tap_hardened",
            Self::RulesSet => "attach.rules_set",
            Self::TapUp => "attach.tap_up",
            Self::RulesRemoved => "detach.rules_removed",
            Self::TapRemoved => "detach.tap_removed",
        }
    }

    /// Kills this process if this is the step, as abruptly as a crash: nothing is unwound, nothing flushed.
    pub(crate) fn strike(self, fault: Option<Self>) {
        if fault == Some(self) {
            // Nothing can stop SIGKILL, and if it could not be sent the test that asked for it fails by itself.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
        }
    }
}

impl FromStr for NetworkStep {
    type Err = UnknownStep;

    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        Self::ALL.into_iter().find(|step| step.name() == text).ok_or(UnknownStep)
    }
}
