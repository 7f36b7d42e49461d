//! The errors of calls to a guest; each says whether the call may have happened all the same.

use std::{sync::Arc, time::Duration};

use emergent_budget::Exhausted;
use emergent_guest_proto::{CallId, ErrorCode, ExecutionId, GuestError};
use emergent_provider::ChannelError;

/// The reason for which a call to a guest failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestCallError {
    /// The guest answered, and refused.
    #[error(transparent)]
    Refused(#[from] GuestError),
    /// The guest was not reached: the call did not happen, and is safe to repeat.
    #[error("the workspace could not be reached; nothing was done")]
    Unreachable(#[source] Arc<OpenError>),
    /// The connection broke after the call was sent: it may have happened.
    #[error("the connection to the workspace broke; the call may have happened{}", what_next(.execution_id.as_ref(), .call_id.as_ref()))]
    Interrupted {
        /// The execution that the call started, if it did; reattach to it.
        execution_id: Option<ExecutionId>,
        /// The call, if it changes something; ask for its outcome.
        call_id: Option<CallId>,
        /// The cause of the interruption.
        #[source]
        source: Interruption,
    },
    /// The guest did not answer in time: the call may have happened.
    #[error("the workspace did not answer within {} s; the call may have happened{}", .after.as_secs(), what_next(.execution_id.as_ref(), .call_id.as_ref()))]
    Timeout {
        /// The execution that the call started, if it did; reattach to it.
        execution_id: Option<ExecutionId>,
        /// The call, if it changes something; ask for its outcome.
        call_id: Option<CallId>,
        /// The time that the call waited.
        after: Duration,
    },
    /// The answer cannot be held in memory beside those of other requests: the call happened.
    #[error("the workspace's answer cannot be taken now")]
    Exhausted(#[source] Exhausted),
    /// The guest answered something that no guest of ours answers.
    #[error("the workspace answered nonsense: {0}")]
    Nonsense(String),
}

/// The causes that interrupt a call that has been sent.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The HTTP/2 connection or the call's stream on it.
    #[error("the connection was lost")]
    Connection(#[source] hyper::Error),
    /// The answer ended before it was complete.
    #[error("the answer was cut short")]
    CutShort,
    /// The guest was restarted: every process of before is gone.
    #[error("the workspace was restarted meanwhile")]
    Restarted,
    /// The guest could not be reached again.
    #[error("the workspace could not be reached again")]
    Unreachable(#[source] Arc<OpenError>),
}

/// The reason for which there is no connection to the guest.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No byte stream could be opened.
    #[error("no channel could be opened")]
    Channel(#[from] ChannelError),
    /// The stream was opened, but no HTTP/2 peer is on it.
    #[error("the channel does not speak HTTP/2")]
    Handshake(#[source] hyper::Error),
    /// The guest's first answer is not one of a guest.
    #[error("the guest's greeting is not valid: {0}")]
    Greeting(String),
    /// No connection within so much time.
    #[error("the guest did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke before the call began.
    #[error("the connection broke before the call began")]
    Broke,
    /// This client was closed: its workspace is going or gone.
    #[error("the connection was closed")]
    Closed,
}

fn what_next(execution: Option<&ExecutionId>, call: Option<&CallId>) -> String {
    match (execution, call) {
        (Some(id), _) => format!("; reattach to execution {id}"),
        (None, Some(id)) => format!("; ask for the outcome of call {id}"),
        (None, None) => String::new(),
    }
}

// === impl GuestCallError ===

impl GuestCallError {
    /// Whether the call may have had an effect although it failed.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreachable(_) => false,
            Self::Interrupted { .. } | Self::Timeout { .. } | Self::Exhausted(_) | Self::Nonsense(_) => true,
        }
    }

    pub(crate) fn is_refusal(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Refused(error) if error.code == code)
    }

    /// The same failure, naming the execution that the call was about.
    pub(crate) fn of_execution(self, id: &ExecutionId) -> Self {
        match self {
            Self::Interrupted { source, .. } => {
                Self::Interrupted { execution_id: Some(id.clone()), call_id: None, source }
            }
            Self::Timeout { after, .. } => Self::Timeout { execution_id: Some(id.clone()), call_id: None, after },
            other => other,
        }
    }

    /// The same failure, naming the call.
    pub(crate) fn of_call(self, id: &CallId) -> Self {
        match self {
            Self::Interrupted { source, .. } => {
                Self::Interrupted { execution_id: None, call_id: Some(id.clone()), source }
            }
            Self::Timeout { after, .. } => Self::Timeout { execution_id: None, call_id: Some(id.clone()), after },
            other => other,
        }
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::Timeout { execution_id: None, call_id: None, after }
    }

    pub(crate) fn lost(source: hyper::Error) -> Self {
        Self::Interrupted { execution_id: None, call_id: None, source: Interruption::Connection(source) }
    }
}

// === impl OpenError ===

impl OpenError {
    /// Whether trying again soon may help. A sandbox that does not run has to be started first.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        !matches!(self, Self::Closed | Self::Channel(ChannelError::NotRunning))
    }
}
