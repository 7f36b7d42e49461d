//! Texts that the errors of several operations share.

use emergent_provider::ContainerKind;
use emergent_store::ErrorReason;
use emergent_types::WorkspaceId;

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

/// Returns the message for a caller who finds all places of a kind taken.
pub(crate) fn no_place(kind: ContainerKind, limit: u32) -> String {
    match kind {
        ContainerKind::AgentWorkspace => {
            format!("{limit} workspaces are in use, as many as WORKSPACE_MAX_CONCURRENT allows; stop or destroy one")
        }
        ContainerKind::McpServer => format!(
            "{limit} MCP servers are hosted, as many as EMERGENT_MCP_MAX_SERVERS allows; remove one, or raise the setting"
        ),
    }
}

/// Returns the message for a caller who chose a name that another workspace has.
pub(crate) fn name_taken(holder: &WorkspaceId) -> String {
    format!(
        "the workspace {holder} of your project has this name; choose another name, or rename or destroy that workspace"
    )
}
