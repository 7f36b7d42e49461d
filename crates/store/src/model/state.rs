//! The states of a workspace.
//!
//! ```text
//!   creating ──► ready ⇄ paused
//!      │           │ ▲       │
//!      │           ▼ │       ▼
//!      │      stopping ──► stopped
//!      ▼           │
//!    error ◄───────┘           any ──► destroying ──► destroyed
//! ```
//!
//! From `stopped` and `error` a workspace is `starting` until it is `ready`. Its row keeps where it comes from
//! meanwhile, for the case that the start fails.

use std::{fmt, str::FromStr};

/// The state of a workspace, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    /// Being made.
    Creating,
    /// Running, its guest answered.
    Ready,
    /// Frozen.
    Paused,
    /// On its way to stopped.
    Stopping,
    /// Not running; its files are kept.
    Stopped,
    /// Out of stopped or error, on its way to ready.
    Starting,
    /// On its way to destroyed.
    Destroying,
    /// Gone; only the row is left.
    Destroyed,
    /// Not running because something went wrong.
    Error,
}

/// The state of a workspace, with its details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceState {
    /// Being made.
    Creating,
    /// Running, its guest answered.
    Ready,
    /// Frozen.
    Paused,
    /// On its way to stopped.
    Stopping,
    /// Not running; its files are kept.
    Stopped,
    /// On its way to destroyed.
    Destroying,
    /// Gone; only the row is left.
    Destroyed,
    /// Not running because something went wrong.
    Error {
        /// The cause of the error; stable, for programs.
        reason: ErrorReason,
        /// The cause of the error and the user's next step; for people and agents.
        message: String,
    },
}

/// The cause of a workspace's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorReason {
    /// The workspace could not be made; nothing of it is left in the engine.
    CreateFailed,
    /// The engine did not answer when the workspace was to be made; its remains are removed when the engine is back.
    EngineUnavailable,
    /// The server was stopped while the workspace was being made; nothing of it is left in the engine.
    CreateInterrupted,
    /// The workspace used more memory than its limit and was ended. Its files are kept; the next call starts it again.
    Oom,
    /// The workspace wanted more processes than its limit, or than its machine has, and ended. Its files are kept; the
    /// next call starts it again.
    ProcessLimit,
    /// The workspace's files took more than its disk limit, or it wrote while its machine's disk was nearly full, and
    /// it was ended. Its files are kept; the next call starts it again, but no program runs in it until there is room.
    DiskFull,
    /// Something outside ended the workspace. Its files are kept; the next call starts it again.
    Killed,
    /// The workspace could not be started again. Its files are kept; the next call tries once more.
    StartFailed,
    /// The engine no longer has the workspace: something removed it behind the server's back.
    EngineLost,
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no state is called {0:?}; there are creating, ready, paused, stopping, stopped, starting, destroying, destroyed and \
     error"
)]
pub struct UnknownState(String);

// === impl StateKind ===

impl StateKind {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Creating,
        Self::Ready,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Starting,
        Self::Destroying,
        Self::Destroyed,
        Self::Error,
    ];

    /// The states that count towards `WORKSPACE_MAX_CONCURRENT`.
    pub const COUNTED: [Self; 4] = [Self::Creating, Self::Ready, Self::Paused, Self::Starting];

    /// The state's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StateKind {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

// === impl WorkspaceState ===

impl WorkspaceState {
    /// The state without its details.
    pub fn word(&self) -> StateKind {
        match self {
            Self::Creating => StateKind::Creating,
            Self::Ready => StateKind::Ready,
            Self::Paused => StateKind::Paused,
            Self::Stopping => StateKind::Stopping,
            Self::Stopped => StateKind::Stopped,
            Self::Destroying => StateKind::Destroying,
            Self::Destroyed => StateKind::Destroyed,
            Self::Error { .. } => StateKind::Error,
        }
    }
}

// === impl ErrorReason ===

impl ErrorReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::CreateFailed,
        Self::EngineUnavailable,
        Self::CreateInterrupted,
        Self::Oom,
        Self::ProcessLimit,
        Self::DiskFull,
        Self::Killed,
        Self::StartFailed,
        Self::EngineLost,
    ];

    /// The reason's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateFailed => "create_failed",
            Self::EngineUnavailable => "engine_unavailable",
            Self::CreateInterrupted => "create_interrupted",
            Self::Oom => "oom",
            Self::ProcessLimit => "process_limit",
            Self::DiskFull => "disk_full",
            Self::Killed => "killed",
            Self::StartFailed => "start_failed",
            Self::EngineLost => "engine_lost",
        }
    }

    /// The reason that a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
