//! What the operator decides.

use std::time::Duration;

use emergent_guest_proto::WorkspaceDefaults;
use emergent_provider::{ContainerKind, Fault, ImageRef, ProviderKind, ResourceLimits};
use emergent_store::IdlePolicy;

use crate::{AuditConfig, DeploymentMode, RegistryLogin};

/// The settings of the core, checked by whoever reads them.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Whether workspaces may be used at all (`ENABLE_AGENT_WORKSPACES`).
    pub enabled: bool,
    /// The provider of requests that name none (`WORKSPACE_DEFAULT_PROVIDER`); `None` chooses by itself.
    pub default_provider: Option<ProviderKind>,
    /// In which order providers are tried when nobody names one (`WORKSPACE_DEPLOYMENT_MODE`).
    pub deployment_mode: DeploymentMode,
    /// How many sandboxes of each pooled image are made ahead of need (`WORKSPACE_WARM_POOL_SIZE`).
    pub warm_pool_size: u32,
    /// The pooled images (`WORKSPACE_WARM_POOL_IMAGES`).
    pub warm_pool_images: Vec<ImageRef>,
    /// How many agent workspaces may be creating, ready or paused at once (`WORKSPACE_MAX_CONCURRENT`).
    pub max_concurrent: u32,
    /// How many MCP servers may be hosted on the whole (`EMERGENT_MCP_MAX_SERVERS`).
    pub max_mcp_servers: u32,
    /// Bytes of an engine's disk that stay free (`WORKSPACE_DISK_RESERVE`): before that they are used up, what would
    /// write is refused, and what writes is ended.
    pub disk_reserve: u64,
    /// How long a workspace lives when the request does not say (`WORKSPACE_DEFAULT_TTL_DAYS`).
    pub default_ttl: chrono::Duration,
    /// How often rows and volumes that are old enough are looked for (`WORKSPACE_CLEANUP_INTERVAL_MIN`).
    pub cleanup_interval: Duration,
    /// How old what the engine has must be before it is taken for an orphan (`WORKSPACE_ORPHAN_GRACE_SEC`).
    pub orphan_grace: chrono::Duration,
    /// How long the row of a destroyed workspace is kept (`WORKSPACE_DESTROYED_RETENTION_DAYS`).
    pub destroyed_retention: chrono::Duration,
    /// How long what the engine has and no row accounts for is kept, once it had been handed over
    /// (`WORKSPACE_LEFTOVER_RETENTION_DAYS`).
    pub leftover_retention: chrono::Duration,
    /// What happens to a workspace that nobody uses, when the request does not say (`WORKSPACE_IDLE_ACTION`,
    /// `WORKSPACE_IDLE_AFTER_MIN`).
    pub default_idle: IdlePolicy,
    /// The share of `max_concurrent`, in percent, above which the log warns (`WORKSPACE_ALERT_THRESHOLD_PCT`).
    pub alert_threshold_pct: u8,
    /// What a workspace may use when the request does not say (`WORKSPACE_DEFAULT_CPU`, `_MEMORY`, `_DISK`).
    pub default_limits: ResourceLimits,
    /// What a workspace runs when the request does not say (`WORKSPACE_DEFAULT_IMAGE`).
    pub default_image: ImageRef,
    /// Globs of images that may be used, those of the engine that nobody has pulled among them
    /// (`WORKSPACE_ALLOWED_IMAGES`); empty allows any that can be pulled.
    pub allowed_images: Vec<String>,
    /// How to log in to registries (`WORKSPACE_REGISTRY_AUTH_FILE`).
    pub registries: Vec<RegistryLogin>,
    /// How long an image that was pulled for a project is kept when nothing is made from it
    /// (`WORKSPACE_PULLED_IMAGE_RETENTION_DAYS`).
    pub pulled_image_retention: chrono::Duration,
    /// Variables and certificate authorities that every workspace gets (`WORKSPACE_ENVIRONMENT`, `WORKSPACE_CA_FILE`).
    pub workspace_defaults: WorkspaceDefaults,
    /// What is kept of what was done and used.
    pub audit: AuditConfig,
    /// Where the process kills itself, for tests of crashes (`EMERGENT_FAULT`).
    pub fault: Option<Fault>,
}

// === impl CoreConfig ===

impl CoreConfig {
    /// How many workspaces of a kind there may be.
    pub(crate) fn places(&self, kind: ContainerKind) -> u32 {
        match kind {
            ContainerKind::AgentWorkspace => self.max_concurrent,
            ContainerKind::McpServer => self.max_mcp_servers,
        }
    }
}
