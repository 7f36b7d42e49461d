//! A workspace as JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use emergent_core::{PassedOver, StateWord, Workspace, WorkspaceState};
use emergent_provider::{ContainerKind, Isolation, NetworkPolicy, ProviderKind, PullProgress, ResourceLimits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::idle::IdleView;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident($schema:literal) = $core:ty { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
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
    /// What a workspace is for.
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
        Gvisor = "gvisor",
        /// Firecracker microVMs.
        Firecracker = "firecracker",
        /// E2B's cloud.
        E2b = "e2b",
    }
}

words! {
    /// What a workspace may reach.
    Network("what a workspace may reach.") = NetworkPolicy {
        /// Nothing: loopback only.
        None = "none",
        /// A network interface and nothing beyond it.
        Isolated = "isolated",
        /// The internet, but not the host, private ranges, the metadata address or other workspaces.
        Outbound = "outbound",
    }
}

words! {
    /// How strongly a workspace is kept apart from the host, weakest first.
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
    State("a state.") = StateWord {
        /// Being made.
        Creating = "creating",
        /// Running, and answering calls.
        Ready = "ready",
        /// Frozen, with its processes.
        Paused = "paused",
        /// On its way to stopped.
        Stopping = "stopping",
        /// Not running; its files are kept.
        Stopped = "stopped",
        /// Out of stopped or error, on its way to ready.
        Starting = "starting",
        /// On its way to destroyed.
        Destroying = "destroying",
        /// Gone; only what is shown here is left.
        Destroyed = "destroyed",
        /// Not running because something went wrong; `error` says what.
        Error = "error",
    }
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Workspace)]
pub struct WorkspaceView {
    /// Names it, in every URL.
    pub id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// For people and programs.
    pub labels: BTreeMap<String, String>,
    /// What it is for.
    pub container_type: ContainerType,
    /// Its state.
    pub state: State,
    /// What went wrong, in the state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkspaceFault>,
    /// Which provider has it.
    pub provider: ProviderName,
    /// Which provider was asked for; null when the server chose.
    pub provider_requested: Option<ProviderName>,
    /// The providers that came before this one in the order of choice, and why they were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOverView>,
    /// It was made ahead of need: the create was a hand-over.
    #[serde(default)]
    pub warm: bool,
    /// What runs it, such as `runsc`; null until it runs.
    pub runtime: Option<String>,
    /// The isolation that it really has; null until it runs.
    pub isolation: Option<IsolationName>,
    /// What it runs.
    pub base_image: String,
    /// What it may use.
    pub resource_limits: LimitsView,
    /// What it may reach.
    pub network: Network,
    /// Calls may run commands as root inside.
    pub allow_root: bool,
    /// What is weaker than asked for, and what to do about it.
    pub warnings: Vec<String>,
    /// How far the pull of its image is, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullView>,
    /// The snapshot that it was made from, which may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<Uuid>,
    /// The workspace that it is a copy of, which may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_workspace_id: Option<Uuid>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it first answered.
    pub ready_at: Option<DateTime<Utc>>,
    /// Milliseconds from the request to the first answer.
    pub ready_in_ms: Option<u64>,
    /// When it was last called; a few seconds behind.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it may be destroyed; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// What happens to it when nobody uses it.
    pub idle: IdleView,
    /// Who holds it; null when nobody does.
    pub attached: Option<AttachedView>,
    /// Why it is being destroyed, or was: `requested` or `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_reason: Option<String>,
}

/// Who holds a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Attached)]
pub struct AttachedView {
    /// The session.
    pub session_id: Uuid,
    /// Who holds it.
    pub holder: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A provider that would have been preferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PassedOver)]
pub struct PassedOverView {
    /// Which provider.
    pub provider: ProviderName,
    /// Why it was not used.
    pub reason: String,
}

/// What went wrong with a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceFault {
    /// A stable word: `create_failed`, `engine_unavailable`, `create_interrupted`, `oom`,
    /// `process_limit`, `disk_full`, `killed`, `start_failed`, `engine_lost`.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
}

/// What a workspace may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ResourceLimits)]
pub struct LimitsView {
    /// CPU cores; 0.5 is half a core.
    pub cpu: f64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Disk, in bytes; enforced where the provider can, else watched.
    pub disk: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// How far the pull of an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PullProgress)]
pub struct PullView {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes known to be needed; grows while layers are discovered.
    pub total_bytes: u64,
    /// The engine's words.
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
        let state = workspace.word().into();
        let error = match workspace.state {
            WorkspaceState::Error { reason, message } if state == State::Error => {
                Some(WorkspaceFault { reason: reason.as_str().to_owned(), message })
            }
            _ => None,
        };
        Self {
            id: workspace.id.as_uuid(),
            name: workspace.name,
            labels: workspace.labels,
            container_type: workspace.kind.into(),
            state,
            error,
            provider: workspace.provider.into(),
            provider_requested: workspace.provider_requested.map(Into::into),
            passed_over: workspace.passed_over.into_iter().map(Into::into).collect(),
            warm: workspace.warm,
            runtime: workspace.runtime,
            isolation: workspace.isolation.map(Into::into),
            base_image: workspace.image.to_string(),
            resource_limits: workspace.limits.into(),
            network: workspace.network.into(),
            allow_root: workspace.allow_root,
            warnings: workspace.warnings,
            pull: workspace.pull.map(|PullProgress { bytes, total_bytes, status }| PullView {
                bytes,
                total_bytes,
                status,
            }),
            snapshot_id: workspace.origin.map(|origin| origin.snapshot.as_uuid()),
            source_workspace_id: workspace.origin.map(|origin| origin.workspace.as_uuid()),
            created_at: workspace.created_at,
            ready_at: workspace.ready_at,
            ready_in_ms: workspace.ready_in_ms,
            last_used_at: workspace.last_used_at,
            expires_at: workspace.expires_at,
            idle: IdleView::new(workspace.idle, workspace.idled),
            attached: workspace.attached.map(|session| AttachedView {
                session_id: session.id.as_uuid(),
                holder: session.holder,
                since: session.attached_at,
            }),
            destroy_reason: workspace.destroy_reason.map(|reason| reason.as_str().to_owned()),
        }
    }
}
