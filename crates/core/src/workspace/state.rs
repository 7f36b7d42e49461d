//! The status of a workspace: its state without the values that belong to the state. The rules decide on it.

use emergent_store::{ErrorReason, StateKind, WorkspaceRow, WorkspaceState};

/// The cause of a workspace's rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuspendReason {
    /// Somebody asked for the rest, and will resume the workspace.
    Asked,
    /// The workspace was not used for a while, and the next call resumes it.
    Idle,
}

/// The status of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkspaceStatus {
    Creating,
    Ready,
    Paused(SuspendReason),
    Stopping(SuspendReason),
    Stopped(SuspendReason),
    /// The workspace is on its way out of `stopped` or `error` to `ready`; its row keeps the state that it comes from.
    Starting,
    Destroying,
    Destroyed,
    Failed(ErrorReason),
}

impl SuspendReason {
    pub(crate) fn of(row: &WorkspaceRow) -> Self {
        if row.suspended_by_idle { Self::Idle } else { Self::Asked }
    }
}

impl WorkspaceStatus {
    pub(crate) fn of(row: &WorkspaceRow) -> Self {
        match &row.state {
            WorkspaceState::Creating => Self::Creating,
            WorkspaceState::Ready => Self::Ready,
            WorkspaceState::Paused => Self::Paused(SuspendReason::of(row)),
            WorkspaceState::Stopping => Self::Stopping(SuspendReason::of(row)),
            WorkspaceState::Stopped | WorkspaceState::Error { .. } if row.starting => Self::Starting,
            WorkspaceState::Stopped => Self::Stopped(SuspendReason::of(row)),
            WorkspaceState::Destroying => Self::Destroying,
            WorkspaceState::Destroyed => Self::Destroyed,
            WorkspaceState::Error { reason, .. } => Self::Failed(*reason),
        }
    }

    /// Returns the state's name that callers are told.
    pub(crate) fn word(self) -> StateKind {
        match self {
            Self::Creating => StateKind::Creating,
            Self::Ready => StateKind::Ready,
            Self::Paused(_) => StateKind::Paused,
            Self::Stopping(_) => StateKind::Stopping,
            Self::Stopped(_) => StateKind::Stopped,
            Self::Starting => StateKind::Starting,
            Self::Destroying => StateKind::Destroying,
            Self::Destroyed => StateKind::Destroyed,
            Self::Failed(_) => StateKind::Error,
        }
    }

    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        let plain = [
            Self::Creating,
            Self::Ready,
            Self::Paused(SuspendReason::Asked),
            Self::Paused(SuspendReason::Idle),
            Self::Stopping(SuspendReason::Asked),
            Self::Stopping(SuspendReason::Idle),
            Self::Stopped(SuspendReason::Asked),
            Self::Stopped(SuspendReason::Idle),
            Self::Starting,
            Self::Destroying,
            Self::Destroyed,
        ];
        plain.into_iter().chain(ErrorReason::ALL.into_iter().map(Self::Failed))
    }
}
