//! A hosted server as callers ask for it and see it.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use emergent_provider::{ImageRef, NetworkPolicy};
use emergent_store::{
    McpPackage, McpServerExit, McpServerId, McpServerRow, McpServerSpec, McpServerState, RestartPolicy,
};

/// A server to register. What is absent is the default's. Its `Debug` shows no value of the environment.
#[derive(Clone, Default)]
pub struct NewServer {
    /// Its name, which no other of the project has.
    pub name: String,
    /// What it is.
    pub what: ServerUpdate,
}

/// What a server is to be; what is absent stays as it is.
#[derive(Clone, Default)]
pub struct ServerUpdate {
    /// The image.
    pub image: Option<ImageRef>,
    /// The program and its arguments; with a package, the arguments alone. Empty: the image's own.
    pub cmd: Option<Vec<String>>,
    /// Where the program runs.
    pub workdir: Option<String>,
    /// The program speaks MCP on its standard input and output.
    pub stdio_bridge: Option<bool>,
    /// Where an HTTP server listens.
    pub port: Option<u16>,
    /// The path of an HTTP server's MCP endpoint.
    pub path: Option<String>,
    /// A package that is installed first.
    pub package: Option<McpPackage>,
    /// What happens when it ends by itself.
    pub restart_policy: Option<RestartPolicy>,
    /// One process for all clients.
    pub shared: Option<bool>,
    /// Its processes run as root inside.
    pub run_as_root: Option<bool>,
    /// The environment, as a whole.
    pub environment: Option<BTreeMap<String, String>>,
    /// The volumes, as a whole, by name.
    pub volumes: Option<BTreeMap<String, VolumeRequest>>,
    /// What it may use.
    pub limits: LimitsChange,
    /// What it may reach.
    pub network: Option<NetworkPolicy>,
    /// How long a call may take.
    pub call_timeout: Option<Duration>,
}

/// A volume to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeRequest {
    /// One of the server's own.
    Own {
        /// Where it is inside.
        path: String,
    },
    /// The `/workspace` of a workspace of the same project.
    Workspace {
        /// The workspace's id, or its name.
        workspace: String,
        /// Where it is inside.
        path: String,
        /// The server cannot write there.
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
    /// Names it.
    pub id: McpServerId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub spec: McpServerSpec,
    /// Names of its environment variables; values are not shown.
    pub environment_keys: Vec<String>,
    /// Where it is in its life.
    pub state: McpServerState,
    /// What is to be said of that.
    pub message: Option<String>,
    /// It runs and has not answered its last calls in time.
    pub unresponsive: bool,
    /// How it last ended by itself.
    pub last_exit: Option<McpServerExit>,
    /// How often it was started again.
    pub restarts: u64,
    /// Open sessions.
    pub sessions: usize,
    /// Processes that speak for it now.
    pub processes: usize,
    /// The era of its protocol, once that is known: `legacy` or `modern`.
    pub era: Option<String>,
    /// What runs its sandbox.
    pub runtime: Option<String>,
    /// What is weaker than asked for.
    pub warnings: Vec<String>,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What one process of a server has written on its standard error.
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
