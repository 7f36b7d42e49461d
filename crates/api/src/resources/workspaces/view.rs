//! A workspace as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_core::{PassedOver, StateKind, Workspace, WorkspaceState};
use emergent_provider::{ContainerKind, Isolation, ProviderKind};
use emergent_types::{NetworkPolicy, PullProgress, ResourceLimits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::idle::IdleView;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident($schema:literal) = $core:ty { $($(#[$variant_doc:meta])* $variant:ident = $word:tt,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            #[doc = concat!("The word in JSON: ", $schema)]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl From<$core> for $name {
            fn from(value: $core) -> Self {
                match value { $(<$core>::$variant => Self::$variant,)+ }
            }
        }

        impl From<$name> for $core {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
}

pub(crate) use words;

words! {
    /// The purpose of a workspace.
    ContainerType("what a workspace is for.") = ContainerKind {
        /// An agent's workspace: ephemeral, with a time to live.
        AgentWorkspace = "agent_workspace",
        /// A hosted MCP server: persistent.
        McpServer = "mcp_server",
    }
}

words! {
    /// The providers.
    ProviderName("a provider.") = ProviderKind {
        /// Containers of the Docker Engine, under gVisor where it is installed.
        Docker = "gvisor",
        /// Firecracker microVMs.
        Firecracker = "firecracker",
        /// E2B's cloud.
        E2b = "e2b",
    }
}

words! {
    /// The networks that a workspace may reach.
    Network("what a workspace may reach.") = NetworkPolicy {
        /// No network: loopback only.
        None = "none",
        /// A network interface and nothing beyond it.
        Isolated = "isolated",
        /// The internet, but not the host, private ranges, the metadata address or other workspaces.
        Outbound = "outbound",
    }
}

words! {
    /// The strength of the isolation between a workspace and the host, weakest first.
    IsolationName("a kind of isolation.") = Isolation {
        /// The host's kernel, with namespaces and cgroups.
        Container = "container",
        /// An application kernel between the workspace and the host's.
        Gvisor = "gvisor",
        /// A virtual machine.
        Hardware = "hardware",
    }
}

words! {
    /// The state of a workspace.
    State("a state.") = StateKind {
        /// The workspace is being made.
        Creating = "creating",
        /// The workspace runs and answers calls.
        Ready = "ready",
        /// The workspace is frozen, with its processes.
        Paused = "paused",
        /// The workspace is being stopped.
        Stopping = "stopping",
        /// The workspace does not run; its files are kept.
        Stopped = "stopped",
        /// The workspace is on its way out of stopped or error to ready.
        Starting = "starting",
        /// The workspace is being destroyed.
        Destroying = "destroying",
        /// The workspace is gone; only the data shown here are left.
        Destroyed = "destroyed",
        /// The workspace does not run because something failed; `error` says what.
        Error = "error",
    }
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Workspace)]
pub struct WorkspaceView {
    /// The workspace's id, in every URL.
    pub id: Uuid,
    /// A display name.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// The workspace's purpose.
    pub container_type: ContainerType,
    /// The workspace's state.
    pub state: State,
    /// The failure, in the state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkspaceFault>,
    /// The provider that has the workspace.
    pub provider: ProviderName,
    /// The provider that the request named; null when the server chose.
    pub provider_requested: Option<ProviderName>,
    /// The providers that came before this one in the order of choice, and the reasons why they were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOverView>,
    /// Whether the workspace was made ahead of need: the create was a hand-over.
    #[serde(default)]
    pub warm: bool,
    /// The sandbox's runtime, such as `runsc`; null until the workspace runs.
    pub runtime: Option<String>,
    /// The actual isolation; null until the workspace runs.
    pub isolation: Option<IsolationName>,
    /// The image that the workspace runs.
    pub base_image: String,
    /// The resource limits.
    pub resource_limits: LimitsView,
    /// The networks that the workspace may reach.
    pub network: Network,
    /// Whether calls may run commands as root inside.
    pub allow_root: bool,
    /// The properties that are weaker than requested, and their remedies.
    pub warnings: Vec<String>,
    /// The progress of the image's pull, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullView>,
    /// The snapshot that the workspace was made from, which may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// The workspace that this one is a copy of, which may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_workspace_id: Option<Uuid>,
    /// The time of the request for the workspace.
    pub created_at: DateTime<Utc>,
    /// The time of the workspace's first answer.
    pub ready_at: Option<DateTime<Utc>>,
    /// The milliseconds from the request to the first answer.
    pub ready_in_ms: Option<u64>,
    /// The time of the last call; a few seconds behind.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The time from which on the workspace may be destroyed; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The idle policy: the action on the workspace when nobody uses it.
    pub idle: IdleView,
    /// The session that holds the workspace; null when none does.
    pub attached: Option<AttachedView>,
    /// The reason why the workspace is being destroyed, or was: `requested` or `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_reason: Option<String>,
}

/// The session that holds a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Attached)]
pub struct AttachedView {
    /// The session's id.
    pub session_id: Uuid,
    /// The holder's name.
    pub holder: String,
    /// The time at which the session began.
    pub since: DateTime<Utc>,
}

/// A provider that the server would have preferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PassedOver)]
pub struct PassedOverView {
    /// The provider's kind.
    pub provider: ProviderName,
    /// The reason why the provider was not used.
    pub reason: String,
}

/// A failure of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceFault {
    /// The failure's reason as a stable word: `create_failed`, `engine_unavailable`, `create_interrupted`, `oom`,
    /// `process_limit`, `disk_full`, `killed`, `start_failed`, `engine_lost`.
    pub reason: String,
    /// The failure and its remedy, in a sentence.
    pub message: String,
}

/// The resource limits of a workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ResourceLimits)]
pub struct LimitsView {
    /// The CPU cores; 0.5 is half a core.
    pub cpu: f64,
    /// The memory, in bytes.
    pub memory: u64,
    /// The disk, in bytes; enforced where the provider can, else watched.
    pub disk: u64,
    /// The number of processes and threads.
    pub pids: u32,
}

/// The progress of an image's pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PullProgress)]
pub struct PullView {
    /// The bytes that have arrived.
    pub bytes: u64,
    /// The bytes known to be needed; the number grows while layers are discovered.
    pub total_bytes: u64,
    /// The progress in the engine's words.
    pub status: String,
}

impl From<PassedOver> for PassedOverView {
    fn from(PassedOver { provider, reason }: PassedOver) -> Self {
        Self { provider: provider.into(), reason }
    }
}

impl From<ResourceLimits> for LimitsView {
    fn from(limits: ResourceLimits) -> Self {
        Self { cpu: limits.cpu, memory: limits.memory_bytes, disk: limits.disk_bytes, pids: limits.pids }
    }
}

impl From<Workspace> for WorkspaceView {
    fn from(workspace: Workspace) -> Self {
        let (warnings, ready_in_ms) = (workspace.warnings(), workspace.ready_in_ms());
        let state = workspace.word().into();
        let Workspace { row, pull, attached } = workspace;
        let error = match row.state {
            WorkspaceState::Error { reason, message } if state == State::Error => {
                Some(WorkspaceFault { reason: reason.as_str().to_owned(), message })
            }
            _ => None,
        };
        Self {
            id: row.id.as_uuid(),
            name: row.name,
            labels: row.labels,
            container_type: row.spec.kind.into(),
            state,
            error,
            provider: row.provider.into(),
            provider_requested: row.provider_requested.map(Into::into),
            passed_over: row.passed_over.into_iter().map(Into::into).collect(),
            warm: row.warm,
            runtime: row.runtime,
            isolation: row.isolation.map(Into::into),
            base_image: row.spec.image.to_string(),
            resource_limits: row.spec.limits.into(),
            network: row.spec.network.into(),
            allow_root: row.spec.allow_root,
            warnings,
            pull: pull.map(|PullProgress { bytes, total_bytes, status }| PullView { bytes, total_bytes, status }),
            snapshot_id: row.origin.map(|origin| origin.snapshot.as_uuid()),
            source_workspace_id: row.origin.map(|origin| origin.workspace.as_uuid()),
            created_at: row.created_at,
            ready_at: row.ready_at,
            ready_in_ms,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            idle: IdleView::new(row.idle, row.suspended_by_idle),
            attached: attached.map(|session| AttachedView {
                session_id: session.id.as_uuid(),
                holder: session.holder,
                since: session.attached_at,
            }),
            destroy_reason: row.destroy_reason.map(|reason| reason.as_str().to_owned()),
        }
    }
}
