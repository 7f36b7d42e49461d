//! What a workspace uses now, and what it used before.

use axum::{Json, extract::State};
use chrono::{DateTime, TimeDelta, Utc};
use emergent_core::{UsageHistory, UsageSample};
use emergent_guest_proto::Usage;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Caller, NeedsRead},
    check::{Check, Faults},
    extract::{Query, WorkspacePath},
    params::WorkspaceParam,
    problem::{OnGuest, OnWorkspace, Refusal},
    span::Span,
    state::ApiState,
};

/// What a workspace used over a span of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = UsageHistory)]
pub struct UsageHistoryView {
    /// The beginning of the span.
    pub since: DateTime<Utc>,
    /// The end of the span.
    pub until: DateTime<Utc>,
    /// What all samples in the span add up to.
    pub totals: UsageTotalsView,
    /// The samples, newest first; the newest 10,000 where there are more.
    pub samples: Vec<UsageSampleView>,
}

/// What samples add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = UsageTotals)]
pub struct UsageTotalsView {
    /// How many samples there are.
    pub samples: u64,
    /// Seconds that they stand for.
    pub seconds: f64,
    /// Seconds of CPU time.
    pub cpu_seconds: f64,
    /// Bytes of memory, times the seconds that they were in use.
    pub memory_byte_seconds: f64,
}

/// What a workspace used, as seen at one moment. The figures come from inside the workspace; none is taken for more
/// than its limits allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = UsageSample)]
pub struct UsageSampleView {
    /// When it was asked.
    pub at: DateTime<Utc>,
    /// Seconds up to then that the sample stands for; 0 for the first one after a start of the server.
    pub seconds: f64,
    /// Seconds of CPU time used in them.
    pub cpu_seconds: f64,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
    /// Bytes that the files in `/workspace` take; null where that is not known.
    pub disk_bytes: Option<u64>,
    /// Processes alive.
    pub processes: u64,
}

/// Which span of time.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// From this time on; a day before its end by default.
    since: Option<DateTime<Utc>>,
    /// Before this time; now by default.
    until: Option<DateTime<Utc>>,
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(get_usage)).routes(routes!(get_usage_history))
}

/// Tells what a workspace uses now, as it is seen inside.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/usage",
    tag = "workspaces",
    security(("token" = ["admin:read"])),
    params(WorkspaceParam),
    responses((status = 200, description = "CPU, memory, processes and disk.", body = Usage), OnGuest)
)]
async fn get_usage(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<Usage>, Refusal> {
    Ok(Json(state.workspaces().guest(caller.project(), id).await?.usage().await?))
}

/// Tells what a workspace used over a span of time, with totals.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/usage/history",
    tag = "workspaces",
    security(("token" = ["admin:read"])),
    params(WorkspaceParam, HistoryQuery),
    responses((status = 200, description = "The samples and what they add up to.", body = UsageHistoryView), OnWorkspace)
)]
async fn get_usage_history(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<UsageHistoryView>, Refusal> {
    let span = Span::of(query.since, query.until);
    let until = span.until.unwrap_or_else(Utc::now);
    let since = span.since.unwrap_or(until - TimeDelta::days(1));
    let history = state.workspaces().usage_history(caller.project(), id, since, until).await?;
    Ok(Json(UsageHistoryView::new(since, until, history)))
}

impl Check for HistoryQuery {
    fn check(&self, _: &mut Faults) {}
}

// === impl UsageHistoryView ===

impl UsageHistoryView {
    fn new(since: DateTime<Utc>, until: DateTime<Utc>, history: UsageHistory) -> Self {
        let UsageHistory { samples, totals } = history;
        let totals = UsageTotalsView {
            samples: totals.samples,
            seconds: totals.seconds,
            cpu_seconds: totals.cpu_seconds,
            memory_byte_seconds: totals.memory_byte_seconds,
        };
        Self { since, until, totals, samples: samples.into_iter().map(Into::into).collect() }
    }
}

impl From<UsageSample> for UsageSampleView {
    fn from(sample: UsageSample) -> Self {
        Self {
            at: sample.at,
            seconds: sample.seconds,
            cpu_seconds: sample.cpu_seconds,
            memory_bytes: sample.memory_bytes,
            disk_bytes: sample.disk_bytes,
            processes: sample.processes,
        }
    }
}
