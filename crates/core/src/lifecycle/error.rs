//! The errors of bringing a workspace to another state.

use std::time::Duration;

use emergent_guest_client::GuestCallError;
use emergent_provider::{ContainerKind, OperationError, ProviderKind};
use emergent_store::{QuotaReached, StateKind, StoreError};

use crate::workspace::{lookup::LookupError, messages::no_place};

/// The reason for which a workspace was not brought to another state.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The project has no such workspace.
    #[error("there is no such workspace")]
    NotFound,
    /// The operation makes no sense in the workspace's state.
    #[error("a workspace in state {state} cannot {operation}; {advice}")]
    WrongState {
        /// The workspace's state.
        state: StateKind,
        /// The operation that was asked for, such as `pause`.
        operation: &'static str,
        /// The caller's next step.
        advice: &'static str,
    },
    /// There are as many workspaces in use as there may be.
    #[error("{}", no_place(ContainerKind::AgentWorkspace, *.limit))]
    LimitReached {
        /// The most workspaces that may be in use.
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// The project may not have that much more.
    #[error("{reached}")]
    OverQuota {
        /// The quota.
        reached: QuotaReached,
        /// When to try again.
        retry_after: Duration,
    },
    /// The workspace's provider is not part of this server.
    #[error("provider {0} is not part of this server")]
    NoProvider(ProviderKind),
    /// The engine does not answer now. What is wanted is recorded.
    #[error(
        "the workspace will be destroyed as soon as its engine answers: that is recorded, and nothing is left to do"
    )]
    DestroyedLater(#[source] OperationError),
    /// The engine refused or did not answer.
    #[error("the engine could not {operation} the workspace")]
    Engine {
        /// The operation that was asked for, such as `pause`.
        operation: &'static str,
        /// The engine's error; [`OperationError::Unsupported`] when the provider cannot do this at all.
        #[source]
        source: OperationError,
    },
    /// The sandbox runs, but its guest does not answer.
    #[error("the workspace was started, but nothing answers in it")]
    Guest(#[source] GuestCallError),
    /// The server is going down.
    #[error("the server is shutting down; try again shortly")]
    ShuttingDown,
    /// The store failed.
    #[error("the workspace's state could not be recorded")]
    Store(#[from] StoreError),
}

// === impl TransitionError ===

impl From<LookupError> for TransitionError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Disabled => Self::Disabled,
            LookupError::NotFound => Self::NotFound,
            LookupError::Store(source) => Self::Store(source),
        }
    }
}
