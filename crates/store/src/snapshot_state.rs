//! The states of snapshots.
//!
//! ```text
//!   creating ──► ready ──► deleting ──► (no row)
//!      │                      ▲
//!      └───► error ───────────┘
//! ```

use std::{fmt, str::FromStr};

/// The state of a snapshot, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotStateKind {
    /// Being taken.
    Creating,
    /// Workspaces can be made from it.
    Ready,
    /// On its way to be gone.
    Deleting,
    /// Not taken because something went wrong; nothing of it is in the engine.
    Error,
}

/// The state of a snapshot, with its details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// Being taken.
    Creating,
    /// Workspaces can be made from it.
    Ready,
    /// On its way to be gone.
    Deleting,
    /// Not taken because something went wrong; nothing of it is in the engine.
    Error {
        /// The cause of the error and the user's next step; for people and agents.
        message: String,
    },
}

/// A word that names no state of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no state of a snapshot is called {0:?}; there are creating, ready, deleting and error")]
pub struct UnknownSnapshotState(String);

// === impl SnapshotStateKind ===

impl SnapshotStateKind {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Creating, Self::Ready, Self::Deleting, Self::Error];

    /// The word for it in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for SnapshotStateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnapshotStateKind {
    type Err = UnknownSnapshotState;

    fn from_str(text: &str) -> Result<Self, UnknownSnapshotState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownSnapshotState(text.to_owned()))
    }
}

// === impl SnapshotState ===

impl SnapshotState {
    /// The state without its details.
    pub fn word(&self) -> SnapshotStateKind {
        match self {
            Self::Creating => SnapshotStateKind::Creating,
            Self::Ready => SnapshotStateKind::Ready,
            Self::Deleting => SnapshotStateKind::Deleting,
            Self::Error { .. } => SnapshotStateKind::Error,
        }
    }
}
