//! The providers: which there are, how they are, and what they can.

use axum::{Json, extract::State};
use emergent_core::ProviderStatus;
use emergent_provider::Capabilities;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::workspaces::view::{IsolationName, ProviderName};
use crate::{
    auth::{Caller, NeedsRead},
    problem::{Refusal, Usual},
    state::ApiState,
};

/// All providers that this release knows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderList {
    /// The providers.
    pub items: Vec<ProviderView>,
    /// The provider of requests that name none; null when the server chooses by itself.
    pub default_provider: Option<ProviderName>,
}

/// A provider.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Provider)]
pub struct ProviderView {
    /// Which one.
    pub provider: ProviderName,
    /// This server has it.
    pub registered: bool,
    /// It can make workspaces, as last asked.
    pub healthy: bool,
    /// Why not, or what is worth knowing.
    pub reason: String,
    /// What weakens it though it works, and what to do about it.
    pub warnings: Vec<String>,
    /// What it can do; null for one that this server does not have.
    pub capabilities: Option<CapabilitiesView>,
    /// Its workspaces that are creating, ready or paused.
    pub active_workspaces: u64,
}

/// What a provider can do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Capabilities)]
pub struct CapabilitiesView {
    /// The isolation that a workspace gets.
    pub isolation: IsolationName,
    /// Files survive stop and resume.
    pub persistence: bool,
    /// Processes survive pause and resume.
    pub pause: bool,
    /// The state can be copied into a new workspace.
    pub snapshots: bool,
    /// Workspaces can be made ahead of need.
    pub warm_pool: bool,
    /// Limits can be changed on a running workspace.
    pub live_limits: bool,
    /// The disk limit is enforced rather than watched.
    pub disk_quota: bool,
    /// Workspaces are kept from the host, private ranges and the metadata address.
    pub network_filter: bool,
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_providers))
}

/// Shows every provider: registered or not, healthy or not, and why.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/providers",
    tag = "providers",
    security(("token" = ["admin:read"])),
    responses((status = 200, description = "The providers.", body = ProviderList), Usual)
)]
async fn list_providers(_: Caller<NeedsRead>, State(state): State<ApiState>) -> Result<Json<ProviderList>, Refusal> {
    let workspaces = state.workspaces();
    if !workspaces.config().enabled {
        return Err(emergent_core::LookupError::Disabled.into());
    }
    let items = workspaces.providers().await.into_iter().map(Into::into).collect();
    Ok(Json(ProviderList { items, default_provider: workspaces.config().default_provider.map(Into::into) }))
}

impl From<ProviderStatus> for ProviderView {
    fn from(status: ProviderStatus) -> Self {
        Self {
            provider: status.kind.into(),
            registered: status.registered,
            healthy: status.healthy,
            reason: status.message,
            warnings: status.warnings,
            capabilities: status.capabilities.map(Into::into),
            active_workspaces: status.active,
        }
    }
}

impl From<Capabilities> for CapabilitiesView {
    fn from(capabilities: Capabilities) -> Self {
        let Capabilities {
            isolation,
            persistence,
            pause,
            snapshots,
            warm_pool,
            live_limits,
            disk_quota,
            network_filter,
        } = capabilities;
        let isolation = isolation.into();
        Self { isolation, persistence, pause, snapshots, warm_pool, live_limits, disk_quota, network_filter }
    }
}
