//! Fault points: steps at which a process kills itself, so that tests see what a crash there leaves behind.

/// The step that kills the process once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(&'static str);

/// A text that names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no step is called {name:?}; there are {known}")]
pub struct UnknownStep {
    name: String,
    known: String,
}

impl Fault {
    /// The one of these steps that is called so.
    ///
    /// # Errors
    /// [`UnknownStep`], which lists them.
    pub fn among(names: impl IntoIterator<Item = &'static str>, name: &str) -> Result<Self, UnknownStep> {
        let names = names.into_iter().collect::<Vec<_>>();
        let found = names.iter().find(|known| **known == name).map(|known| Self(known));
        found.ok_or_else(|| UnknownStep { name: name.to_owned(), known: names.join(", ") })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_fault_and_an_unknown_one_is_refused_with_those_that_are_known() {
        let names = ["create.intent_recorded", "stop.intent_recorded"];
        assert_eq!(Fault::among(names, "stop.intent_recorded"), Ok(Fault("stop.intent_recorded")));
        let refusal = Fault::among(names, "create.nothing").unwrap_err().to_string();
        assert!(refusal.contains("create.intent_recorded, stop.intent_recorded"), "{refusal}");
    }
}
