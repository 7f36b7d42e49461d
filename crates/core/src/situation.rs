//! Where a workspace stands, as the rules see it: its state without what belongs to it.

use emergent_store::{ErrorReason, StateWord, WorkspaceRow, WorkspaceState};

/// Where a workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    Creating,
    Ready,
    Paused,
    Stopping,
    Stopped,
    /// Out of `stopped` or `error`, on its way to `ready`; its row still shows where it comes from.
    Starting,
    Destroying,
    Destroyed,
    Failed(ErrorReason),
}

impl Situation {
    pub(crate) fn of(row: &WorkspaceRow) -> Self {
        match &row.state {
            WorkspaceState::Creating => Self::Creating,
            WorkspaceState::Ready => Self::Ready,
            WorkspaceState::Paused => Self::Paused,
            WorkspaceState::Stopping => Self::Stopping,
            WorkspaceState::Stopped | WorkspaceState::Error { .. } if row.starting => Self::Starting,
            WorkspaceState::Stopped => Self::Stopped,
            WorkspaceState::Destroying => Self::Destroying,
            WorkspaceState::Destroyed => Self::Destroyed,
            WorkspaceState::Error { reason, .. } => Self::Failed(*reason),
        }
    }

    /// The word that callers are told.
    pub(crate) fn word(self) -> StateWord {
        match self {
            Self::Creating => StateWord::Creating,
            Self::Ready => StateWord::Ready,
            Self::Paused => StateWord::Paused,
            Self::Stopping => StateWord::Stopping,
            Self::Stopped | Self::Starting => StateWord::Stopped,
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
            Self::Paused,
            Self::Stopping,
            Self::Stopped,
            Self::Starting,
            Self::Destroying,
            Self::Destroyed,
        ];
        plain.into_iter().chain(ErrorReason::ALL.into_iter().map(Self::Failed))
    }
}
