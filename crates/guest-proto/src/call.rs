//! Calls that change something. Each has a name, so that its outcome can be asked for when its answer was lost, and so
//! that it happens once or never.
//!
//! ```text
//!   unknown ──► running ──► done | refused
//!      └──────► not begun                    (it was asked for before it came, and is refused when it does)
//! ```

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{ExecutionId, GuestError};

/// The header with the [`CallId`] of a request that changes something.
pub const CALL_HEADER: &str = "x-emergent-call";

/// The header of a request that was sent before, and whose answer was lost: the guest answers it with the outcome of
/// the first one, or does it if that never came. Its value is of no meaning.
pub const AGAIN_HEADER: &str = "x-emergent-again";

/// Names a call within its workspace: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CallId(ExecutionId);

/// A text that cannot be a [`CallId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a call id is 1 to 64 of the characters A-Z a-z 0-9 _ -")]
pub struct InvalidCallId;

/// Asks for the outcome of a call, in a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeQuery {
    /// Answer when the call has ended, and not at once.
    #[serde(default)]
    pub wait: bool,
}

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CallOutcome {
    /// The call is under way, and will end whether or not anybody waits for it.
    Running,
    /// The call did what it was asked for.
    Done {
        /// The body of its answer; null where that has none.
        answer: Value,
    },
    /// The call was refused or failed.
    Refused {
        /// The guest's error.
        error: GuestError,
    },
    /// The call has not begun, and will not: when it comes now, it is refused.
    NotBegun {
        /// The guest knows all calls of the last so many milliseconds. One that was sent earlier may have happened.
        known_for_ms: u64,
    },
}

// === impl CallId ===

impl CallId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidCallId`] when a character or the length is not allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidCallId> {
        ExecutionId::new(text).map(Self).map_err(|_| InvalidCallId)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CallId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
