//! The engine's report of the sandboxes that exist, whoever made them.

use chrono::{DateTime, Utc};

use emergent_types::{SandboxId, ServerId};

use crate::ContainerKind;

/// A sandbox as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The workspace on the sandbox's label.
    pub workspace: SandboxId,
    /// The server that made the sandbox, from the sandbox's label.
    pub server: ServerId,
    /// The purpose on the sandbox's label.
    pub kind: ContainerKind,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The sandbox's state.
    pub state: EngineState,
    /// Whether it was made for somebody or has been handed over to somebody since; `None` where the engine cannot tell.
    pub claimed: Option<bool>,
}

/// The state of a sandbox.
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

/// The reason for which a sandbox is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The kernel ended it for using more memory than its limit.
    OutOfMemory,
    /// The sandbox wanted more processes and threads than its limit, or than its machine has, and ended by that or was
    /// ended.
    ProcessLimit,
    /// The sandbox was ended since its files took more than its disk limit.
    DiskLimit,
    /// The sandbox was ended since it wrote while its machine's disk was nearly full.
    HostDisk,
    /// The sandbox ended with this code; 137 is the code after SIGKILL.
    Code(i64),
}

/// Something happened to a sandbox, whoever caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// The workspace of the sandbox.
    pub workspace: SandboxId,
    /// The event.
    pub kind: EngineEventKind,
}

/// The events in the life of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEventKind {
    /// The sandbox runs.
    Started,
    /// The sandbox is frozen.
    Paused,
    /// The sandbox runs again after a pause.
    Unpaused,
    /// A process in it, perhaps all, ran out of memory.
    OutOfMemory,
    /// The sandbox stopped running.
    Exited(ExitReason),
    /// The sandbox is gone.
    Removed,
}
