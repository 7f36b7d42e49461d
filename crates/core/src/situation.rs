//! The situation of a workspace: its state without the values that belong to the state. The rules decide on it.

use emergent_store::{ErrorReason, StateWord, WorkspaceRow, WorkspaceState};

/// The cause of a workspace's rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Somebody asked for the rest, and will resume the workspace.
    Asked,
    /// The workspace was not used for a while, and the next call resumes it.
    Idle,
}

/// The situation of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    Creating,
    Ready,
    Paused(Rest),
    Stopping(Rest),
    Stopped(Rest),
    /// The workspace is on its way out of `stopped` or `error` to `ready`; its row keeps the state that it comes from.
    Starting,
    Destroying,
    Destroyed,
    Failed(ErrorReason),
}

impl Rest {
    pub(crate) fn of(row: &WorkspaceRow) -> Self {
        if row.idled { Self::Idle } else { Self::Asked }
    }
}

impl Situation {
    pub(crate) fn of(row: &WorkspaceRow) -> Self {
        match &row.state {
            WorkspaceState::Creating => Self::Creating,
            WorkspaceState::Ready => Self::Ready,
            WorkspaceState::Paused => Self::Paused(Rest::of(row)),
            WorkspaceState::Stopping => Self::Stopping(Rest::of(row)),
            WorkspaceState::Stopped | WorkspaceState::Error { .. } if row.starting => Self::Starting,
            WorkspaceState::Stopped => Self::Stopped(Rest::of(row)),
            WorkspaceState::Destroying => Self::Destroying,
            WorkspaceState::Destroyed => Self::Destroyed,
            WorkspaceState::Error { reason, .. } => Self::Failed(*reason),
        }
    }

    /// Returns the state's name that callers are told.
    pub(crate) fn word(self) -> StateWord {
        match self {
            Self::Creating => StateWord::Creating,
            Self::Ready => StateWord::Ready,
            Self::Paused(_) => StateWord::Paused,
            Self::Stopping(_) => StateWord::Stopping,
            Self::Stopped(_) => StateWord::Stopped,
            Self::Starting => StateWord::Starting,
            Self::Destroying => StateWord::Destroying,
            Self::Destroyed => StateWord::Destroyed,
            Self::Failed(_) => StateWord::Error,
        }
    }

    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        let plain = [
            Self::Creating,
            Self::Ready,
            Self::Paused(Rest::Asked),
            Self::Paused(Rest::Idle),
            Self::Stopping(Rest::Asked),
            Self::Stopping(Rest::Idle),
            Self::Stopped(Rest::Asked),
            Self::Stopped(Rest::Idle),
            Self::Starting,
            Self::Destroying,
            Self::Destroyed,
        ];
        plain.into_iter().chain(ErrorReason::ALL.into_iter().map(Self::Failed))
    }
}
