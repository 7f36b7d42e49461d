//! The operator's settings.

use std::time::Duration;

use emergent_guest_proto::WorkspaceDefaults;
use emergent_provider::{ContainerKind, ImageRef, ProviderKind};
use emergent_store::IdlePolicy;
use emergent_types::{Fault, ResourceLimits};

use crate::{
    audit::AuditConfig,
    placement::{images::RegistryLogin, providers::DeploymentMode},
};

/// The settings of the core. The code that reads them has checked them.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Whether workspaces may be used at all (`ENABLE_AGENT_WORKSPACES`).
    pub enabled: bool,
    /// The provider of requests that name none (`WORKSPACE_DEFAULT_PROVIDER`); `None` lets the server choose.
    pub default_provider: Option<ProviderKind>,
    /// The order in which providers are tried when a request names none (`WORKSPACE_DEPLOYMENT_MODE`).
    pub deployment_mode: DeploymentMode,
    /// The number of sandboxes of each pooled image that are made ahead of need (`WORKSPACE_WARM_POOL_SIZE`).
    pub warm_pool_size: u32,
    /// The pooled images (`WORKSPACE_WARM_POOL_IMAGES`).
    pub warm_pool_images: Vec<ImageRef>,
    /// The number of agent workspaces that may be creating, ready or paused at once (`WORKSPACE_MAX_CONCURRENT`).
    pub max_concurrent: u32,
    /// The number of MCP servers that may be hosted in all (`EMERGENT_MCP_MAX_SERVERS`).
    pub max_mcp_servers: u32,
    /// The bytes of an engine's disk that stay free (`WORKSPACE_DISK_RESERVE`). When less is free, calls that would
    /// write are refused, and sandboxes that go on writing are ended.
    pub disk_reserve: u64,
    /// The lifetime of a workspace whose request names none (`WORKSPACE_DEFAULT_TTL_DAYS`).
    pub default_ttl: chrono::Duration,
    /// The interval between two clean-ups of old rows and volumes (`WORKSPACE_CLEANUP_INTERVAL_MIN`).
    pub cleanup_interval: Duration,
    /// The age from which on an engine's unknown sandbox or snapshot counts as an orphan
    /// (`WORKSPACE_ORPHAN_GRACE_SEC`).
    pub orphan_grace: chrono::Duration,
    /// The time for which the row of a destroyed workspace is kept (`WORKSPACE_DESTROYED_RETENTION_DAYS`).
    pub destroyed_retention: chrono::Duration,
    /// The time for which a leftover is kept: a sandbox or snapshot that had been handed over and that no row accounts
    /// for (`WORKSPACE_LEFTOVER_RETENTION_DAYS`).
    pub leftover_retention: chrono::Duration,
    /// The idle policy of a workspace whose request names none (`WORKSPACE_IDLE_ACTION`, `WORKSPACE_IDLE_AFTER_MIN`).
    pub default_idle: IdlePolicy,
    /// The share of `max_concurrent`, in percent, above which the log warns (`WORKSPACE_ALERT_THRESHOLD_PCT`).
    pub alert_threshold_pct: u8,
    /// The resource limits of a workspace whose request names none (`WORKSPACE_DEFAULT_CPU`, `_MEMORY`, `_DISK`).
    pub default_limits: ResourceLimits,
    /// The image of a workspace whose request names none (`WORKSPACE_DEFAULT_IMAGE`).
    pub default_image: ImageRef,
    /// Globs of the images that may be used, images that the engine has without a pull included
    /// (`WORKSPACE_ALLOWED_IMAGES`); an empty list allows every image that can be pulled.
    pub allowed_images: Vec<String>,
    /// The logins of registries (`WORKSPACE_REGISTRY_AUTH_FILE`).
    pub registries: Vec<RegistryLogin>,
    /// The time for which an image that was pulled for a project is kept when no workspace is made from it
    /// (`WORKSPACE_PULLED_IMAGE_RETENTION_DAYS`).
    pub pulled_image_retention: chrono::Duration,
    /// Variables and certificate authorities that every workspace gets (`WORKSPACE_ENVIRONMENT`, `WORKSPACE_CA_FILE`).
    pub workspace_defaults: WorkspaceDefaults,
    /// The settings for the audit and for usage samples.
    pub audit: AuditConfig,
    /// The point at which the process kills itself, for tests of crashes (`EMERGENT_FAULT`).
    pub fault: Option<Fault>,
}

// === impl CoreConfig ===

impl CoreConfig {
    /// Returns how many workspaces of a kind may exist at once.
    pub(crate) fn places(&self, kind: ContainerKind) -> u32 {
        match kind {
            ContainerKind::AgentWorkspace => self.max_concurrent,
            ContainerKind::McpServer => self.max_mcp_servers,
        }
    }
}
