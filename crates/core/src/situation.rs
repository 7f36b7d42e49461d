//! Where a workspace stands, as the rules see it: its state without what belongs to it.

use emergent_store::{ErrorReason, StateWord, WorkspaceRow, WorkspaceState};

/// Whose will it is that a workspace rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Somebody's, who will resume it.
    Asked,
    /// Nobody's: it was not used for a while, and the next call resumes it.
    Idle,
}

/// Where a workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    Creating,
    Ready,
    Paused(Rest),
    Stopping(Rest),
    Stopped(Rest),
    /// Out of `stopped` or `error`, on its way to `ready`; its row keeps where it comes from.
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

    /// The word that callers are told.
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
