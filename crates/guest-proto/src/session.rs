//! The messages about the guest itself and about the workspace as a whole.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The answer to the first request on every channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The guest's protocol generation ([`GENERATION`](crate::GENERATION)).
    pub generation: u32,
    /// The guest's release, for people.
    pub version: String,
    /// Drawn at random when the guest starts: another value means that every process of before is gone.
    pub boot_id: String,
    /// The kernel as `uname -r` says it.
    pub kernel: String,
    /// Whether the guest has its configuration: before that, the sandbox is nobody's. (Guests of generation 1 that do not
    /// say so were given everything when they were made.)
    #[serde(rename = "handed_over", default = "yes")]
    pub is_configured: bool,
}

fn yes() -> bool {
    true
}

/// The properties that make a sandbox somebody's workspace. The `Debug` form shows no value of the environment.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The environment of every command, besides the image's own. Values may be secrets.
    pub environment: BTreeMap<String, String>,
    /// Calls may run commands as root.
    pub allow_root: bool,
    /// Given to every workspace by the operator of the server.
    #[serde(default)]
    pub defaults: WorkspaceDefaults,
}

/// Settings that the operator of a server gives to every workspace. The `Debug` form shows no value of the environment.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceDefaults {
    /// Variables that hold where neither the workspace nor one that it is a copy of has its own.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Certificates of private authorities, in PEM: trusted besides those that the image has.
    #[serde(default)]
    pub authorities: Option<String>,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { environment, allow_root, defaults } = self;
        let keys = environment.keys().collect::<Vec<_>>();
        let mut shown = f.debug_struct("Configuration");
        shown.field("environment", &keys).field("allow_root", allow_root).field("defaults", defaults).finish()
    }
}

impl fmt::Debug for WorkspaceDefaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.environment.keys().collect::<Vec<_>>();
        let has_authorities = self.authorities.is_some();
        f.debug_struct("WorkspaceDefaults").field("environment", &keys).field("authorities", &has_authorities).finish()
    }
}

/// The usage of a workspace, read inside it. A figure that this sandbox does not show is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// CPU time that all processes have used since the sandbox started, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The memory limit, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Processes alive.
    pub processes: Option<u64>,
    /// Bytes used on the file system that holds `/workspace`.
    pub disk_used_bytes: Option<u64>,
    /// Size in bytes of the file system that holds `/workspace`.
    pub disk_total_bytes: Option<u64>,
    /// Bytes that the files in `/workspace` take, as last counted; absent until they were counted once.
    #[serde(default)]
    pub workspace_bytes: Option<u64>,
    /// Bytes that the files in its other volumes take, as last counted; absent where it has none, or until they were
    /// counted once.
    #[serde(default)]
    pub volume_bytes: Option<u64>,
    /// Milliseconds since the guest started.
    pub uptime_ms: u64,
    /// The guest's problem now, and its remedy; for people.
    #[serde(default)]
    pub problem: Option<String>,
}

/// The reason for which the workspace's processes ended before the guest was started again, where the server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// The reason that lost executions are shown with; for people.
    pub reason: String,
}
