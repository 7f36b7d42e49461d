//! Why an operation was refused or failed. Display never repeats the cause; print the chain.

use std::time::Duration;

use emergent_guest_client::GuestCallError;
use emergent_guest_proto::{ExecutionId, GuestError};
use emergent_provider::{ContainerKind, ImageRef, OperationError, ProviderKind};
use emergent_store::{ErrorReason, QuotaReached, SessionRow, SnapshotStateKind, StateKind, StoreError};
use emergent_types::{ServerId, WorkspaceId};

use crate::{Fullness, NoRoom, Unavailable, workspace::state::WorkspaceStatus};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error("{setting} is not usable: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Why not.
        reason: String,
    },
    /// The store failed.
    #[error("the rows of this server's workspaces could not be read")]
    Store(#[from] StoreError),
}

/// Why no workspace was made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum NewWorkspaceError {
    /// The server takes no new workspaces.
    #[error("this server is draining and takes no new workspaces; {}", where_else(.others))]
    Draining {
        /// The servers that do.
        others: Vec<String>,
    },
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The request asks for something that cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field that is to blame, such as `limits.cpu`.
        field: String,
        /// The values that the field takes.
        message: String,
    },
    /// The operator does not allow the image.
    #[error("image {image} is not allowed here; WORKSPACE_ALLOWED_IMAGES says which are")]
    ImageNotAllowed {
        /// Which image.
        image: ImageRef,
    },
    /// Another workspace of the project has the name.
    #[error("{}", name_taken(.holder))]
    NameTaken {
        /// That workspace.
        holder: WorkspaceId,
    },
    /// There are as many workspaces of its kind as there may be.
    #[error("{}", no_place(*.kind, *.limit))]
    LimitReached {
        /// Of which kind.
        kind: ContainerKind,
        /// How many there may be.
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// The project may not have that much more.
    #[error("{reached}")]
    OverQuota {
        /// Which quota.
        reached: QuotaReached,
        /// When to try again.
        retry_after: Duration,
    },
    /// The machine under the engine has no room for more.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No provider can make it now, or ever: `reasons` has each one that came into question.
    #[error("{}", told(.reasons))]
    NoProvider {
        /// The request named the one that it wants.
        named: bool,
        /// Each provider, and why not.
        reasons: Vec<(ProviderKind, Unavailable)>,
    },
    /// The snapshot that it is to be made from cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotUnusable),
    /// Another request came before with the same idempotency key.
    #[error("this Idempotency-Key was used for a different request in the last 24 hours")]
    IdempotencyMismatch,
    /// The server is going down.
    #[error("the server is shutting down; try again shortly")]
    ShuttingDown,
    /// The store failed.
    #[error("the workspace could not be recorded")]
    Store(#[from] StoreError),
}

/// Why nothing can be made from a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotUnusable {
    /// The project has no such snapshot.
    #[error("there is no such snapshot")]
    NotFound,
    /// The snapshot is not ready.
    #[error("the snapshot is in state {0}; only one that is ready can be used")]
    NotReady(SnapshotStateKind),
    /// Another server keeps it.
    #[error("server {0} of this installation keeps the snapshot; ask that one")]
    Elsewhere(ServerId),
}

/// Why a snapshot was not taken, shown or deleted, or a workspace not forked.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The workspace is not there, or cannot be copied now.
    #[error(transparent)]
    Workspace(#[from] TransitionError),
    /// The request asks for something that cannot be; nothing was made.
    #[error(transparent)]
    Request(#[from] NewWorkspaceError),
    /// The snapshot is not there, or not here.
    #[error(transparent)]
    Unusable(#[from] SnapshotUnusable),
    /// The engine could not delete it.
    #[error("the engine could not delete the snapshot")]
    Delete(#[source] OperationError),
    /// The store failed.
    #[error("the snapshot could not be recorded or looked up")]
    Store(#[from] StoreError),
}

/// Why a workspace was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The project has no such workspace.
    #[error("there is no such workspace")]
    NotFound,
    /// The store failed.
    #[error("the workspace could not be looked up")]
    Store(#[from] StoreError),
}

/// Why workspaces were not listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Workspaces are switched off.
    #[error("workspaces are switched off; set ENABLE_AGENT_WORKSPACES=true")]
    Disabled,
    /// The page's limit is out of range.
    #[error("limit: 1 to {most}")]
    BadLimit {
        /// The most that a page has.
        most: u32,
    },
    /// The store failed.
    #[error("the workspaces could not be listed")]
    Store(#[from] StoreError),
}

/// Why a leftover was not adopted or removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// There is no such leftover.
    #[error("there is no such leftover; `emergent server leftovers` lists them")]
    NotFound,
    /// Another server found it.
    #[error("server {0} of this installation found it; ask that one")]
    Elsewhere(ServerId),
    /// Its provider is not part of this server.
    #[error("provider {0} is not part of this server")]
    NoProvider(ProviderKind),
    /// The leftover cannot become a workspace or a snapshot.
    #[error("it cannot be adopted: {reason}; copy what you need out of it, or remove it")]
    NotAdoptable {
        /// Why not.
        reason: &'static str,
    },
    /// The engine refused or did not answer.
    #[error("the engine could not do it")]
    Engine(#[source] OperationError),
    /// The store failed.
    #[error("it could not be recorded")]
    Store(#[from] StoreError),
}

/// Why a workspace was not brought to another state.
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
        /// Its state.
        state: StateKind,
        /// The operation that was asked for, such as `pause`.
        operation: &'static str,
        /// The caller's next step.
        advice: &'static str,
    },
    /// There are as many workspaces in use as there may be.
    #[error("{}", no_place(ContainerKind::AgentWorkspace, *.limit))]
    LimitReached {
        /// How many there may be.
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// The project may not have that much more.
    #[error("{reached}")]
    OverQuota {
        /// Which quota.
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

/// Why a workspace was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else holds it.
    #[error("the workspace is attached by {:?} since {}", .0.holder, .0.attached_at)]
    Held(Box<SessionRow>),
    /// The session's id, chosen by the caller, names another session or one that has ended.
    #[error("this session id names another session, or one that has ended")]
    IdTaken,
    /// There is no such workspace, or it could not be made ready.
    #[error(transparent)]
    Workspace(#[from] TransitionError),
}

/// Why something could not be done with a session, or on behalf of one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The workspace was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The workspace has had no such session.
    #[error("the workspace has had no such session")]
    NoSuchSession,
    /// Another session is attached.
    #[error("the workspace is attached by {:?} since {}", .0.holder, .0.attached_at)]
    Held(Box<SessionRow>),
    /// The session is not attached, and no other one is.
    #[error("this session is not attached")]
    NotAttached,
    /// The store failed.
    #[error("the session could not be looked up or recorded")]
    Store(#[from] StoreError),
}

/// Why a workspace was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The workspace was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The workspace is destroyed, or on its way there.
    #[error("a workspace in state {state} cannot be changed; create another")]
    Gone {
        /// Its state.
        state: StateKind,
    },
    /// Another workspace of the project has the name.
    #[error("{}", name_taken(.holder))]
    NameTaken {
        /// That workspace.
        holder: WorkspaceId,
    },
    /// The workspace would become something that cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field that is to blame, such as `labels`.
        field: String,
        /// The values that the field takes.
        message: String,
    },
    /// The store failed.
    #[error("the change could not be recorded")]
    Store(#[from] StoreError),
}

/// Why a call to a workspace failed.
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
        /// Its state.
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
        /// How.
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

/// How a workspace ended by itself, after "the workspace".
pub(crate) fn told_failure(reason: ErrorReason) -> &'static str {
    match reason {
        ErrorReason::Oom => "ran out of memory and was ended",
        ErrorReason::ProcessLimit => "reached its limit on processes and was ended",
        ErrorReason::DiskFull => "wrote more than its disk holds and was ended",
        ErrorReason::Killed | ErrorReason::StartFailed => "was ended from outside",
        ErrorReason::CreateFailed
        | ErrorReason::EngineUnavailable
        | ErrorReason::CreateInterrupted
        | ErrorReason::EngineLost => "is lost",
    }
}

/// The memory limit of a workspace that ran out of memory, and what to do when it is too small.
pub(crate) fn told_memory_limit(bytes: u64) -> String {
    format!(
        "its limit is {} MiB, which stays as it is; a copy of it, or another workspace, is made with more by \
         `resource_limits.memory` (on the command line --memory)",
        bytes >> 20
    )
}

fn where_else(others: &[String]) -> String {
    match others {
        [] => "no other server is there; end it with `emergent server undrain`".to_owned(),
        others => format!("ask {}", others.join(" or ")),
    }
}

/// Returns the message for a caller who finds all places of a kind taken.
fn no_place(kind: ContainerKind, limit: u32) -> String {
    match kind {
        ContainerKind::AgentWorkspace => {
            format!("{limit} workspaces are in use, as many as WORKSPACE_MAX_CONCURRENT allows; stop or destroy one")
        }
        ContainerKind::McpServer => format!(
            "{limit} MCP servers are hosted, as many as EMERGENT_MCP_MAX_SERVERS allows; remove one, or raise the setting"
        ),
    }
}

fn told(reasons: &[(ProviderKind, Unavailable)]) -> String {
    if let [(provider, why)] = reasons {
        return format!("provider {provider} is not available: {why}");
    }
    let reasons = reasons.iter().map(|(provider, why)| format!("{provider}: {why}"));
    format!("no provider is available: {}", reasons.collect::<Vec<_>>().join("; "))
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

// === impl SnapshotError ===

impl From<crate::workspace::validate::InvalidField> for SnapshotError {
    fn from(error: crate::workspace::validate::InvalidField) -> Self {
        Self::Request(error.into())
    }
}

impl From<LookupError> for SnapshotError {
    fn from(error: LookupError) -> Self {
        Self::Workspace(error.into())
    }
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

fn name_taken(holder: &WorkspaceId) -> String {
    format!(
        "the workspace {holder} of your project has this name; choose another name, or rename or destroy that workspace"
    )
}
