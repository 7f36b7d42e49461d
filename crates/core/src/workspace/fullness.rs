//! The reasons why nothing may write in a workspace.

use std::fmt;

use emergent_store::{ErrorReason, WorkspaceRow, WorkspaceState};

/// The reason for which nothing may write in a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullness {
    /// The workspace's files take more than its disk limit.
    Own {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The disk of its machine is nearly full.
    Host,
}

// === impl Fullness ===

impl Fullness {
    /// Returns the fullness that a workspace's row tells.
    pub(crate) fn of(row: &WorkspaceRow) -> Option<Self> {
        match row.state {
            // Which of the two it is, the next count tells.
            WorkspaceState::Error { reason: ErrorReason::DiskFull, .. } => {
                Some(Self::Own { limit: row.spec.limits.disk_bytes })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { limit } => write!(
                f,
                "the workspace's files, those outside /workspace too, take more than its disk limit of {} MiB or have more \
                 names than it allows (65,536, and one for each 16 KiB), so that nothing is written and no program is started in it; remove files with POST …/files/remove, which \
                 works all the same, or make a workspace with a larger limit",
                limit >> 20
            ),
            Self::Host => f.write_str(
                "the host's disk is nearly full (WORKSPACE_DISK_RESERVE), so that nothing is written; remove what is not \
                 needed any more, or ask an administrator for a larger disk",
            ),
        }
    }
}
