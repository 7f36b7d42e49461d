//! The reasons for which workspaces are destroyed.

use std::fmt;

use crate::model::words::Word;

/// The reason for which a workspace, or the remains of one, is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DestroyReason {
    /// Somebody asked for the destruction.
    Requested,
    /// The workspace's time was up.
    Expired,
    /// The workspace could not be made, and its remains were removed.
    FailedCreate,
    /// The engine had the workspace, and no row accounted for it.
    Orphan,
    /// The database with the workspace's row was copied, and the copy became a server of its own. The workspace lives
    /// on at the server of the original.
    NewIdentity,
}

// === impl DestroyReason ===

impl DestroyReason {
    /// The reason's word in rows, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Expired => "expired",
            Self::FailedCreate => "failed_create",
            Self::Orphan => "orphan",
            Self::NewIdentity => "new_identity",
        }
    }
}

impl Word for DestroyReason {
    const ALL: &'static [Self] = &[Self::Requested, Self::Expired, Self::FailedCreate, Self::Orphan, Self::NewIdentity];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl fmt::Display for DestroyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
