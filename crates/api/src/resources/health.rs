//! The server's liveness, its readiness for calls, and its metrics.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use emergent_core::Readiness;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::workspaces::view::ProviderName;
use crate::{
    auth::Caller,
    http::{
        problem::{ProblemKind, Refusal, Usual},
        route::{READ, Routes, of_project, public},
    },
    state::ApiState,
};

/// The server's health.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `degraded` when workspaces are switched on and no provider can make one.
    pub status: HealthStatus,
    /// The server's release.
    pub version: String,
    /// The seconds since the server started.
    pub uptime_seconds: u64,
    /// Whether workspaces are switched on (`ENABLE_AGENT_WORKSPACES`).
    pub workspaces_enabled: bool,
    /// The providers that this server has.
    pub providers: Vec<ProviderHealth>,
}

/// The server's health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// The server works.
    Ok,
    /// The server runs, and something that it needs does not work.
    Degraded,
}

/// A provider's health.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderHealth {
    /// The provider's kind.
    pub provider: ProviderName,
    /// Whether the provider can make workspaces, as of the last health request.
    pub healthy: bool,
}

/// The server's readiness for calls.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Always true; when it is not, the answer is a problem.
    pub ready: bool,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(health), public())
        .operation(routes!(ready), public())
        .operation(routes!(metrics), of_project(READ))
}

/// Reports the server's health. Needs no token, and answers as long as the process lives.
#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    responses((status = 200, description = "The process lives.", body = Health))
)]
async fn health(State(state): State<ApiState>) -> Json<Health> {
    let enabled = state.workspaces().config().enabled;
    let providers = state.workspaces().providers(None).await;
    let registered = providers.into_iter().filter(|status| status.registered);
    let providers: Vec<_> =
        registered.map(|status| ProviderHealth { provider: status.kind.into(), healthy: status.healthy }).collect();
    let degraded = enabled && !providers.iter().any(|provider| provider.healthy);
    Json(Health {
        status: if degraded { HealthStatus::Degraded } else { HealthStatus::Ok },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: state.started().elapsed().as_secs(),
        workspaces_enabled: enabled,
        providers,
    })
}

/// Reports whether the server takes calls: its store answers, and the state that an earlier process left is reconciled.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "server",
    responses(
        (status = 200, description = "It takes calls.", body = Ready),
        (status = 503, description = "Not yet, or no longer.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn ready(State(state): State<ApiState>) -> Result<Json<Ready>, Refusal> {
    let wait = match state.workspaces().is_ready() {
        Readiness::Ready => None,
        Readiness::Reconciling => Some("the server is sorting out what an earlier process left; try again shortly"),
        Readiness::Draining => Some("the server is draining: calls to its workspaces go on, and it takes no new ones"),
        Readiness::ShuttingDown => Some("the server is shutting down"),
    };
    if let Some(detail) = wait {
        return Err(Refusal::new(ProblemKind::NotReady, detail).retry_after(1));
    }
    state.store().ping().await?;
    Ok(Json(Ready { ready: true }))
}

/// Returns the server's metrics, for Prometheus. Needs an administrator's token: they are of all projects
/// together.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses((status = 200, description = "Metrics in Prometheus' text format.", body = String, content_type = "text/plain"), Usual)
)]
async fn metrics(caller: Caller, State(state): State<ApiState>) -> Result<Response, Refusal> {
    caller.require_administrator()?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, state.metrics().render()).into_response())
}
