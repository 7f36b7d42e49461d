//! A hosted MCP server as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_mcp_hosting::{LogLines, McpServerExit, McpServerState, Server};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::request::{PackageRequest, RestartPolicyName, SharingName, VolumeName};

/// The word in place of a secret.
pub const REDACTED: &str = "<redacted>";

/// The state of a hosted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpState {
    /// On its way to running: its container is made, or its program has not answered yet.
    Starting,
    /// The server takes calls.
    Running,
    /// The server's program ends, or does not answer, before it is ready; `message` says how, and when it is tried
    /// again.
    Failing,
    /// The server has crashed too often, and is started again after a while.
    BackingOff,
    /// The server has ended, and its restart policy leaves it so.
    Stopped,
    /// The server's container could not be made; `message` says why, and when that is tried again.
    Failed,
    /// On its way to be gone.
    Deleting,
}

/// A hosted MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = McpServer)]
pub struct McpServerView {
    /// Names it in its URL, as its name does.
    pub id: Uuid,
    /// The server's name.
    pub name: String,
    /// The server's state.
    pub state: McpState,
    /// The reason for the state, such as `exited with 1 before it was ready; next try in 15 s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The server runs, its last calls have timed out, and it has answered nothing since they began.
    pub unresponsive: bool,
    /// The path of its MCP endpoint (Streamable HTTP).
    pub endpoint: String,
    /// The image.
    pub image: String,
    /// The program and its arguments; null: the image's own.
    pub cmd: Option<Vec<String>>,
    /// The directory that the program runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The program speaks MCP on its standard input and output.
    pub stdio_bridge: bool,
    /// The port of an HTTP-based server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of an HTTP-based server's endpoint inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The package that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageRequest>,
    /// The restart policy for a server that ends by itself.
    pub restart_policy: RestartPolicyName,
    /// The clients that share a process.
    pub sharing: SharingName,
    /// The server's processes run as root inside.
    pub run_as_root: bool,
    /// The names of its variables; their values are never shown.
    pub environment: BTreeMap<String, String>,
    /// The server's volumes by name: the path inside for one of its own, or the workspace that it shares.
    pub volumes: BTreeMap<String, VolumeName>,
    /// The resources that the server may use.
    pub resource_limits: McpLimits,
    /// The network that the server may reach.
    pub network: String,
    /// How long a call may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// How often it was started again after it had ended by itself.
    pub restarts: u64,
    /// How it last ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<McpExit>,
    /// Open sessions.
    pub sessions: usize,
    /// Processes that speak for it now.
    pub processes: usize,
    /// The era of its protocol once that is known: `legacy` (2025-11-25 and older) or `modern` (2026-07-28).
    pub era: Option<String>,
    /// The runtime, such as `runsc`.
    pub runtime: Option<String>,
    /// The protections that are weaker than asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// The resources that a hosted server may use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct McpLimits {
    /// CPU cores.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// How a hosted server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct McpExit {
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The reason, where the server's whole container ended or the server was not started at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The end of its standard error.
    pub stderr: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A project's hosted servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct McpServerList {
    /// The servers, by name.
    pub items: Vec<McpServerView>,
}

/// The standard error of a server's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct McpLogs {
    /// The reason why the server does not run, with the last output of its package's installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The processes that run, the oldest first.
    pub processes: Vec<McpLog>,
    /// How the last one that ended by itself did so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<McpExit>,
}

/// The standard error of one process: the last 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct McpLog {
    /// Names the process.
    pub process: String,
    /// How many bytes came before and are no longer kept.
    pub dropped_bytes: u64,
    /// The text.
    pub stderr: String,
}

/// The answer to a call: one of the two.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct McpAnswer {
    /// The result, as the server gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// The error that the server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<McpCallError>,
}

/// An error that a server answered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct McpCallError {
    /// The error's code.
    pub code: i64,
    /// The error's message.
    pub message: String,
    /// The error's data, as the server gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
}

impl From<Server> for McpServerView {
    fn from(server: Server) -> Self {
        let spec = server.spec;
        Self {
            id: server.id.as_uuid(),
            endpoint: format!("/api/v1/mcp/servers/{}/mcp", server.name),
            name: server.name,
            state: server.state.into(),
            message: server.message,
            unresponsive: server.unresponsive,
            image: spec.image,
            cmd: spec.cmd,
            workdir: spec.workdir,
            stdio_bridge: spec.stdio_bridge,
            port: spec.port,
            path: spec.path,
            package: spec.package.map(Into::into),
            restart_policy: spec.restart_policy.into(),
            sharing: if spec.shared { SharingName::Shared } else { SharingName::PerSession },
            run_as_root: spec.run_as_root,
            environment: server.environment_keys.into_iter().map(|key| (key, REDACTED.to_owned())).collect(),
            volumes: spec
                .volumes
                .into_iter()
                .map(|(name, path)| (name, VolumeName::Own(path)))
                .chain(spec.shares.into_iter().map(|(name, share)| (name, share.into())))
                .collect(),
            resource_limits: McpLimits {
                cpu: spec.cpu,
                memory: spec.memory_bytes,
                disk: spec.disk_bytes,
                pids: spec.pids,
            },
            network: spec.network,
            call_timeout_ms: spec.call_timeout_ms,
            restarts: server.restarts,
            last_exit: server.last_exit.map(Into::into),
            sessions: server.sessions,
            processes: server.processes,
            era: server.era,
            runtime: server.runtime,
            warnings: server.warnings,
            created_at: server.created_at,
            updated_at: server.updated_at,
        }
    }
}

impl From<McpServerState> for McpState {
    fn from(state: McpServerState) -> Self {
        match state {
            McpServerState::Starting => Self::Starting,
            McpServerState::Running => Self::Running,
            McpServerState::Failing => Self::Failing,
            McpServerState::BackingOff => Self::BackingOff,
            McpServerState::Stopped => Self::Stopped,
            McpServerState::Failed => Self::Failed,
            McpServerState::Deleting => Self::Deleting,
        }
    }
}

impl From<McpServerExit> for McpExit {
    fn from(exit: McpServerExit) -> Self {
        let McpServerExit { code, signal, reason, stderr, at } = exit;
        Self { exit_code: code, signal, reason, stderr, at }
    }
}

impl From<LogLines> for McpLog {
    fn from(log: LogLines) -> Self {
        let stderr = String::from_utf8_lossy(&log.bytes).into_owned();
        Self { process: log.process, dropped_bytes: log.offset, stderr }
    }
}
