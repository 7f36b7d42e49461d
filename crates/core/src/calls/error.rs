//! The errors of calls to workspaces.

use std::time::Duration;

use emergent_guest_client::GuestCallError;
use emergent_guest_proto::{ExecutionId, GuestError};
use emergent_store::{ErrorReason, StateKind, StoreError};

use crate::{
    lifecycle::TransitionError,
    workspace::{fullness::Fullness, lookup::LookupError, messages::told_failure, state::WorkspaceStatus},
};

/// The reason for which a call to a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The project has no such workspace.
    #[error("there is no such workspace")]
    NotFound,
    /// The workspace does not take calls in its state.
    #[error("a workspace in state {state} takes no calls; {advice}")]
    WrongState {
        /// The workspace's state.
        state: StateKind,
        /// The caller's next step.
        advice: &'static str,
    },
    /// Nothing may write in it before there is room.
    #[error("{0}")]
    Full(Fullness),
    /// The workspace is still being made.
    #[error("the workspace is still being made; try again shortly")]
    Creating {
        /// When to try again.
        retry_after: Duration,
    },
    /// The workspace had to be started again first, and was not.
    #[error("the workspace was not running and could not be started again")]
    Restart(#[source] Box<TransitionError>),
    /// Somebody paused the workspace while a command ran, and nobody resumed it in the command's time.
    #[error(
        "the workspace was paused while the command ran, and not resumed in the command's time; resume it, and the command \
         goes on: GET …/processes/{execution}/wait answers its result"
    )]
    StillPaused {
        /// The command's execution.
        execution: ExecutionId,
    },
    /// The workspace ended while the call was under way.
    #[error("{}", told_ending(*.ending, *.may_have_happened))]
    Ended {
        /// The way in which the workspace ended.
        ending: WorkspaceEnd,
        /// The execution that the call started, if it did. It is lost.
        execution: Option<ExecutionId>,
        /// Whether the call may have had an effect.
        may_have_happened: bool,
    },
    /// The guest answered, and refused.
    #[error(transparent)]
    Guest(GuestError),
    /// The guest was not reached, or not to the end;
    /// [`may_have_happened`](GuestCallError::may_have_happened) tells which.
    #[error(transparent)]
    Channel(GuestCallError),
    /// The store failed.
    #[error("the workspace could not be looked up")]
    Store(#[from] StoreError),
}

/// How a workspace ended under a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceEnd {
    /// Somebody stopped it.
    Stopped,
    /// Somebody destroyed it, or its time was over.
    Destroyed,
    /// The workspace ended by itself, and is started again by the next call.
    Failed(ErrorReason),
    /// The workspace ended by itself, and is being started again.
    Restarted,
}

// === impl WorkspaceEnd ===

impl WorkspaceEnd {
    /// The end of a workspace that has this status; `None` while its processes are there, or not yet there.
    pub(crate) fn of(status: WorkspaceStatus) -> Option<Self> {
        match status {
            WorkspaceStatus::Creating | WorkspaceStatus::Ready | WorkspaceStatus::Paused(_) => None,
            WorkspaceStatus::Stopping(_) | WorkspaceStatus::Stopped(_) => Some(Self::Stopped),
            WorkspaceStatus::Starting => Some(Self::Restarted),
            WorkspaceStatus::Destroying | WorkspaceStatus::Destroyed => Some(Self::Destroyed),
            WorkspaceStatus::Failed(reason) => Some(Self::Failed(reason)),
        }
    }
}

fn told_ending(ending: WorkspaceEnd, may_have_happened: bool) -> String {
    let (ended, advice) = match ending {
        WorkspaceEnd::Stopped => ("was stopped", "resume it and call again"),
        WorkspaceEnd::Destroyed => ("was destroyed, or its time was over,", "make another one"),
        WorkspaceEnd::Restarted => ("ended by itself and is being started again", "call again"),
        WorkspaceEnd::Failed(reason) => {
            let advice = match reason {
                ErrorReason::Oom => {
                    "the next call starts it again with its files and the same memory limit; a workspace that is made \
                     with a larger `resource_limits.memory` has room for more"
                }
                ErrorReason::ProcessLimit | ErrorReason::Killed | ErrorReason::StartFailed => {
                    "the next call starts it again with its files"
                }
                ErrorReason::DiskFull => "the next call starts it again, so that files can be removed",
                ErrorReason::CreateFailed
                | ErrorReason::EngineUnavailable
                | ErrorReason::CreateInterrupted
                | ErrorReason::EngineLost => "destroy it and make another one",
            };
            (told_failure(reason), advice)
        }
    };
    let happened = if may_have_happened { "the call may have happened" } else { "nothing was done" };
    format!("the workspace {ended} while the call was under way ({happened}); {advice}")
}

// === impl CallError ===

impl From<GuestCallError> for CallError {
    fn from(error: GuestCallError) -> Self {
        match error {
            GuestCallError::Refused(refusal) => Self::Guest(refusal),
            other => Self::Channel(other),
        }
    }
}

impl From<LookupError> for CallError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Disabled => Self::Disabled,
            LookupError::NotFound => Self::NotFound,
            LookupError::Store(source) => Self::Store(source),
        }
    }
}

impl From<Fullness> for CallError {
    fn from(fullness: Fullness) -> Self {
        Self::Full(fullness)
    }
}
