//! A hosted server as callers ask for it and see it.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use emergent_provider::ImageRef;
use emergent_store::{
    McpPackage, McpServerExit, McpServerId, McpServerRow, McpServerSpec, McpServerState, RestartPolicy,
};
use emergent_types::NetworkPolicy;

/// A server to register. Absent settings take their defaults. Its `Debug` shows no value of the environment.
#[derive(Clone, Default)]
pub struct NewServer {
    /// The server's name, which no other server of the project has.
    pub name: String,
    /// The server's settings.
    pub what: ServerUpdate,
}

/// The settings that a server is to have; absent ones stay as they are.
#[derive(Clone, Default)]
pub struct ServerUpdate {
    /// The image.
    pub image: Option<ImageRef>,
    /// The program and its arguments; with a package, the arguments alone. Empty: the image's own.
    pub cmd: Option<Vec<String>>,
    /// The working directory of the program.
    pub workdir: Option<String>,
    /// Whether the program speaks MCP on its standard input and output.
    pub stdio_bridge: Option<bool>,
    /// The port on which an HTTP-based server listens.
    pub port: Option<u16>,
    /// The path of an HTTP-based server's MCP endpoint.
    pub path: Option<String>,
    /// A package that is installed first.
    pub package: Option<McpPackage>,
    /// The policy for the end of the server by itself: whether it is started again.
    pub restart_policy: Option<RestartPolicy>,
    /// Whether all clients share one process.
    pub shared: Option<bool>,
    /// Whether the server's processes run as root inside.
    pub run_as_root: Option<bool>,
    /// The environment, as a whole.
    pub environment: Option<BTreeMap<String, String>>,
    /// The volumes, as a whole, by name.
    pub volumes: Option<BTreeMap<String, VolumeRequest>>,
    /// The resources that the server may use.
    pub limits: LimitsChange,
    /// The networks that the server may reach.
    pub network: Option<NetworkPolicy>,
    /// The time that a call may take.
    pub call_timeout: Option<Duration>,
}

/// A volume that a server is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeRequest {
    /// A volume of the server's own.
    Own {
        /// The volume's path inside.
        path: String,
    },
    /// The `/workspace` of a workspace of the same project.
    Workspace {
        /// The workspace's id, or its name.
        workspace: String,
        /// The volume's path inside.
        path: String,
        /// Whether the server cannot write there.
        read_only: bool,
    },
}

/// Limits to change.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LimitsChange {
    /// CPU cores.
    pub cpu: Option<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of disk.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A hosted server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The server's id.
    pub id: McpServerId,
    /// The server's name.
    pub name: String,
    /// The server's settings.
    pub spec: McpServerSpec,
    /// The names of the server's environment variables; values are not shown.
    pub environment_keys: Vec<String>,
    /// The server's state.
    pub state: McpServerState,
    /// The explanation of the state.
    pub message: Option<String>,
    /// Whether the server runs and has not answered its last calls in time.
    pub unresponsive: bool,
    /// The server's last end by itself.
    pub last_exit: Option<McpServerExit>,
    /// The number of times that the server was started again.
    pub restarts: u64,
    /// The number of open sessions.
    pub sessions: usize,
    /// The number of processes that speak for the server now.
    pub processes: usize,
    /// The era of the server's protocol, once that is known: `legacy` or `modern`.
    pub era: Option<String>,
    /// The runtime of the server's sandbox.
    pub runtime: Option<String>,
    /// The warnings about properties of the sandbox that are weaker than asked for.
    pub warnings: Vec<String>,
    /// The time at which the server was registered.
    pub created_at: DateTime<Utc>,
    /// The time at which the server was last changed.
    pub updated_at: DateTime<Utc>,
}

/// The standard error of one process of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLines {
    /// The process.
    pub process: String,
    /// The offset of the first byte here; those before it are no longer kept.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Server {
    pub(crate) fn of(row: McpServerRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            spec: row.spec,
            environment_keys: row.environment_keys,
            state: row.state,
            message: row.message,
            unresponsive: false,
            last_exit: row.last_exit,
            restarts: row.restarts,
            sessions: 0,
            processes: 0,
            era: row.era,
            runtime: row.runtime,
            warnings: row.warnings,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl fmt::Debug for NewServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewServer").field("name", &self.name).finish_non_exhaustive()
    }
}
