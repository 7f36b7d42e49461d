//! What the engine says there is, whoever made it.

use chrono::{DateTime, Utc};

use crate::{ContainerKind, ServerId, WorkspaceId};

/// A sandbox as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whose it is, from its label.
    pub workspace: WorkspaceId,
    /// Which server made it, from its label.
    pub server: ServerId,
    /// What it is for, from its label.
    pub kind: ContainerKind,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// What it is doing.
    pub state: EngineState,
    /// Whether it was made for somebody or has been handed over to somebody since; `None` where the engine cannot tell.
    pub handed_over: Option<bool>,
}

/// What a sandbox is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Not running.
    Exited(ExitReason),
    /// Only something of it is left, such as its volume or what can never be started again: what an interrupted create
    /// or destroy leaves.
    Remains,
}

/// Why a sandbox is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The kernel ended it for using more memory than its limit.
    OutOfMemory,
    /// It wanted more processes and threads than its limit, or than its machine has, and ended by that or was ended.
    ProcessLimit,
    /// It was ended since its files took more than its disk limit.
    DiskLimit,
    /// It was ended since it wrote while its machine's disk was nearly full.
    HostDisk,
    /// It ended with this code; 137 is what SIGKILL leaves.
    Code(i64),
}

/// Something happened to a sandbox, whoever caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What happened.
    pub kind: EngineEventKind,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEventKind {
    /// It runs.
    Started,
    /// It is frozen.
    Paused,
    /// It runs again.
    Unpaused,
    /// A process in it, perhaps all, ran out of memory.
    OutOfMemory,
    /// It stopped running.
    Exited(ExitReason),
    /// It is gone.
    Removed,
}
