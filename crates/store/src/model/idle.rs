//! The policy for a workspace that nobody uses.

use std::{fmt, time::Duration};

use crate::{
    StoreError,
    model::words::{Word, from_integer, from_word},
};

/// The action on a workspace that nobody has used for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IdleAction {
    /// Nothing: it runs on.
    #[default]
    None,
    /// The workspace is paused, and goes on with the next call.
    Pause,
    /// The workspace is stopped, and is started by the next call.
    Stop,
}

/// The action on a workspace that nobody uses, and the time after which it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdlePolicy {
    /// The action.
    pub action: IdleAction,
    /// The time for which nobody must have used the workspace.
    pub after: Duration,
}

// === impl IdleAction ===

impl IdleAction {
    /// The action's word in rows, settings and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pause => "pause",
            Self::Stop => "stop",
        }
    }
}

impl Word for IdleAction {
    const ALL: &'static [Self] = &[Self::None, Self::Pause, Self::Stop];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl fmt::Display for IdleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl IdlePolicy ===

impl IdlePolicy {
    /// The time of `after` where nobody sets one.
    pub const DEFAULT_AFTER: Duration = Duration::from_secs(30 * 60);

    pub(crate) fn of_columns(action: &str, after_ms: i64) -> Result<Self, StoreError> {
        let after = Duration::from_millis(from_integer("idle_after_ms", after_ms)?);
        Ok(Self { action: from_word("idle_action", action)?, after })
    }

    /// The time as its column holds it, in milliseconds; the largest number that the column holds stands for all longer
    /// times.
    pub(crate) fn after_ms(self) -> i64 {
        i64::try_from(self.after.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self { action: IdleAction::None, after: Self::DEFAULT_AFTER }
    }
}
