//! Refusals and failures of MCP hosting, as problems.

use emergent_mcp::CallError;
use emergent_mcp_hosting::{HostingError, McpServerState, ServerCallError};
use emergent_provider::OperationError;
use emergent_types::error_chain;

use super::{ProblemKind, Refusal};

/// The number of seconds that a caller should wait before it calls a server again that does not run.
const SOON: u64 = 5;

impl From<HostingError> for Refusal {
    fn from(error: HostingError) -> Self {
        match error {
            HostingError::Disabled => {
                let detail =
                    "workspaces are switched off on this server; set ENABLE_AGENT_WORKSPACES=true and start it again";
                Self::new(ProblemKind::WorkspacesDisabled, detail)
            }
            HostingError::NotFound => {
                let detail =
                    "your project has no MCP server of this id or name; list them with GET /api/v1/mcp/servers";
                Self::new(ProblemKind::McpServerNotFound, detail)
            }
            HostingError::NameTaken(_) => Self::of_field(ProblemKind::McpServerNameTaken, "name", error.to_string()),
            HostingError::Invalid { field, message } => Self::of_field(ProblemKind::InvalidValue, field, message),
            HostingError::NoWorkspace { ref field, .. } => {
                Self::of_field(ProblemKind::WorkspaceNotFound, field.clone(), error.to_string())
            }
            HostingError::ImageNotAllowed(_) => {
                Self::of_field(ProblemKind::ImageNotAllowed, "image", error.to_string())
            }
            HostingError::Full { .. } => Self::new(ProblemKind::LimitReached, error.to_string()).retry_after(SOON),
            HostingError::NoRoom(source) => source.into(),
            HostingError::OverQuota(_) => Self::new(ProblemKind::QuotaReached, error.to_string()).retry_after(SOON),
            HostingError::NoKey => Self::of_field(ProblemKind::NoSecretKey, "environment", error.to_string()),
            HostingError::Elsewhere => Self::new(ProblemKind::WorkspaceElsewhere, error.to_string()),
            HostingError::NotRunning { state, .. } => match state {
                McpServerState::Starting
                | McpServerState::Running
                | McpServerState::Failing
                | McpServerState::BackingOff => {
                    Self::new(ProblemKind::McpServerNotReady, error.to_string()).retry_after(SOON)
                }
                McpServerState::Stopped | McpServerState::Failed | McpServerState::Deleting => {
                    Self::new(ProblemKind::McpServerNotRunning, error.to_string())
                }
            },
            HostingError::Engine { ref source, .. } => match source {
                OperationError::EngineUnavailable { .. } => {
                    Self::new(ProblemKind::EngineUnavailable, error_chain(&error)).retry_after(SOON)
                }
                _ => Self::new(ProblemKind::EngineRefused, error_chain(&error)),
            },
            HostingError::ShuttingDown => Self::new(ProblemKind::NotReady, error.to_string()).retry_after(SOON),
            HostingError::Store(source) => source.into(),
        }
    }
}

impl From<ServerCallError> for Refusal {
    fn from(error: ServerCallError) -> Self {
        match error {
            ServerCallError::Hosting(source) => source.into(),
            ServerCallError::NotBridged => Self::new(ProblemKind::UnsupportedOperation, error.to_string()),
            ServerCallError::Params(_) => Self::of_field(ProblemKind::InvalidValue, "params", error_chain(&error)),
            ServerCallError::Call(ref call) => match call {
                CallError::TimedOut { .. } => {
                    let detail = format!(
                        "{error}; nothing was restarted. `timeout_ms` (`emergent mcp call --timeout SECONDS`) gives one \
                         call longer, and the server's `call_timeout_ms` (`emergent mcp update --timeout SECONDS`) all \
                         calls"
                    );
                    Self::new(ProblemKind::McpCallTimedOut, detail)
                }
                CallError::Busy => Self::new(ProblemKind::McpServerBusy, error.to_string()).retry_after(1),
                CallError::Parameters => Self::of_field(ProblemKind::InvalidValue, "params", error.to_string()),
                CallError::Launch(_) | CallError::Exited(_) | CallError::NotReady { .. } | CallError::Rpc { .. } => {
                    Self::new(ProblemKind::McpServerFailed, error.to_string())
                }
            },
        }
    }
}
