//! The providers with their health and capabilities, and the sandboxes that are made ahead of need.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use emergent_core::{PoolStatus, ProviderStatus};
use emergent_provider::Capabilities;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::workspaces::view::{IsolationName, ProviderName};
use crate::{
    auth::Caller,
    http::{
        problem::{Refusal, Usual},
        route::{READ, Routes, of_project},
    },
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
    /// The provider's kind.
    pub provider: ProviderName,
    /// Whether this server has the provider.
    pub registered: bool,
    /// Whether the provider can make workspaces, as of the last health request.
    pub healthy: bool,
    /// The reason why the automatic choice leaves the provider out at present, although it reports good health: it has
    /// just failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The reason why the provider is unhealthy, or a remark on a healthy one.
    pub reason: String,
    /// Weaknesses of a provider that works, and their remedies.
    pub warnings: Vec<String>,
    /// The provider's capabilities; null for one that this server does not have.
    pub capabilities: Option<CapabilitiesView>,
    /// The number of the provider's workspaces that are creating, ready or paused: your project's, or those of all
    /// projects if you are an administrator.
    pub active_workspaces: u64,
}

/// The capabilities of a provider.
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

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(list_providers), of_project(READ))
        .operation(routes!(show_warm_pool), of_project(READ))
}

/// Shows every provider: registered or not, healthy or not, and why.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/providers",
    tag = "providers",
    responses((status = 200, description = "The providers.", body = ProviderList), Usual)
)]
async fn list_providers(caller: Caller, State(state): State<ApiState>) -> Result<Json<ProviderList>, Refusal> {
    let workspaces = state.workspaces();
    if !workspaces.config().enabled {
        return Err(emergent_core::LookupError::Disabled.into());
    }
    let items = workspaces.providers(caller.principal().sees()).await.into_iter().map(Into::into).collect();
    Ok(Json(ProviderList { items, default_provider: workspaces.config().default_provider.map(Into::into) }))
}

/// The sandboxes that are made ahead of need.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmPool {
    /// The pools, one for each image that is kept ready; empty where WORKSPACE_WARM_POOL_SIZE is 0.
    pub items: Vec<WarmImage>,
}

/// The sandboxes of one image that are made ahead of need.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmImage {
    /// The image.
    pub base_image: String,
    /// The number of sandboxes that the pool should hold.
    pub target: u32,
    /// The number of sandboxes that wait to become a workspace.
    pub ready: u32,
    /// The number of sandboxes that are being made.
    pub making: u32,
    /// The number of creates that took a sandbox from the pool, since the server started.
    pub hits: u64,
    /// The number of creates of this image that did not, by reason: `empty`, `limits`, `network`, `provider`, `kind`,
    /// `hand_over`.
    pub misses: BTreeMap<String, u64>,
    /// The reason why the last sandbox could not be made; cleared once one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Shows the warm pool. Needs an administrator's token: the pool is for all projects together.
#[utoipa::path(
    get,
    path = "/api/v1/agent/warm-pool",
    tag = "providers",
    responses((status = 200, description = "The warm pool.", body = WarmPool), Usual)
)]
async fn show_warm_pool(caller: Caller, State(state): State<ApiState>) -> Result<Json<WarmPool>, Refusal> {
    caller.require_administrator()?;
    Ok(Json(WarmPool { items: state.workspaces().pool().into_iter().map(Into::into).collect() }))
}

impl From<PoolStatus> for WarmImage {
    fn from(status: PoolStatus) -> Self {
        Self {
            base_image: status.image.to_string(),
            target: status.target,
            ready: status.ready,
            making: status.making,
            hits: status.hits,
            misses: status.misses.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            failure: status.failure,
        }
    }
}

impl From<ProviderStatus> for ProviderView {
    fn from(status: ProviderStatus) -> Self {
        Self {
            provider: status.kind.into(),
            registered: status.registered,
            healthy: status.healthy,
            quarantine: status.quarantine,
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
