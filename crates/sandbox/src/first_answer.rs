//! The wait for a guest that is starting.

use std::time::Duration;

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::Hello;
use emergent_provider::{EngineState, Inventory, OperationError};
use emergent_types::SandboxId;
use tokio::time::{Instant, sleep};

/// The time that a guest may take to give its first answer, however slow the host is.
pub const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// The pause before the guest is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// The reason for which a guest gave no answer. Each has the error of the last call.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The sandbox does not run.
    #[error("the sandbox ended before its guest had answered")]
    Ended(#[source] GuestCallError),
    /// The engine does not say whether the sandbox runs.
    #[error("the engine did not say whether the sandbox runs")]
    Unknown {
        /// The error of the last call.
        call: GuestCallError,
        /// The engine's error.
        #[source]
        source: OperationError,
    },
    /// The sandbox runs, and nothing answers in it.
    #[error("nothing answers in the sandbox")]
    Silent(#[source] GuestCallError),
}

// === impl NoAnswer ===

impl NoAnswer {
    /// Returns the error of the last call.
    pub fn into_call(self) -> GuestCallError {
        match self {
            Self::Ended(call) | Self::Unknown { call, .. } | Self::Silent(call) => call,
        }
    }
}

/// Waits until the guest has answered once, for as long as its sandbox runs and at most for `within`.
///
/// # Errors
/// [`NoAnswer`].
pub async fn first_answer(
    inventory: &dyn Inventory,
    sandbox: SandboxId,
    guest: &Guest,
    within: Duration,
) -> Result<Hello, NoAnswer> {
    let deadline = Instant::now() + within;
    loop {
        let call = match guest.hello().await {
            Ok(hello) => return Ok(hello),
            Err(call) => call,
        };
        let state = match inventory.inspect(sandbox).await {
            Ok(observed) => observed.map(|observed| observed.state),
            Err(source) => return Err(NoAnswer::Unknown { call, source }),
        };
        if state != Some(EngineState::Running) {
            return Err(NoAnswer::Ended(call));
        }
        if Instant::now() > deadline {
            return Err(NoAnswer::Silent(call));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
