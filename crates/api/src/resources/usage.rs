//! The usage of a workspace, now and before.

use axum::{Json, extract::State};
use chrono::{DateTime, TimeDelta, Utc};
use emergent_core::{UsageHistory, UsageSample};
use emergent_guest_proto::Usage;
use emergent_types::ResourceLimits;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{Query, WorkspacePath},
        problem::{OnGuest, OnWorkspace, Refusal},
        route::{READ, Routes, of_workspace},
        span::Span,
    },
    resources::params::WorkspaceParam,
    state::ApiState,
};

/// How much is shown of what a guest says does not work, in characters.
const MOST_OF_PROBLEM: usize = 1_000;

/// The present usage of a workspace. The figures come from inside; the limits are the workspace's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    /// CPU time that all processes have used since the sandbox started, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// CPU cores that it may use.
    pub cpu_limit: f64,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that it may use, in bytes.
    pub memory_limit_bytes: u64,
    /// Processes alive.
    pub processes: Option<u64>,
    /// Processes and threads that there may be.
    pub processes_limit: u32,
    /// Bytes that the files in `/workspace` take, as last counted; null until they were counted once.
    pub disk_used_bytes: Option<u64>,
    /// Bytes that the files in the volumes that the image declares take, as last counted; null where it declares none.
    pub volume_bytes: Option<u64>,
    /// Disk that it may use, in bytes. The status of the provider says whether that is enforced or watched.
    pub disk_limit_bytes: u64,
    /// Milliseconds since the guest started.
    pub uptime_ms: u64,
    /// The problem inside now, and its remedy: on a full disk, that executions cannot be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The usage of a workspace over a span of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = UsageHistory)]
pub struct UsageHistoryView {
    /// The beginning of the span.
    pub since: DateTime<Utc>,
    /// The end of the span.
    pub until: DateTime<Utc>,
    /// The sums of all samples in the span.
    pub totals: UsageTotalsView,
    /// The samples, newest first; the newest 10,000 where there are more.
    pub samples: Vec<UsageSampleView>,
}

/// The sums of samples.
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

/// The usage of a workspace at one moment. The figures come from inside the workspace; none is taken for more
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

// === impl UsageView ===

impl UsageView {
    fn new(said: &Usage, limits: &ResourceLimits) -> Self {
        Self {
            cpu_ms: said.cpu_ms,
            cpu_limit: limits.cpu,
            memory_bytes: said.memory_bytes,
            memory_limit_bytes: limits.memory_bytes,
            processes: said.processes,
            processes_limit: limits.pids,
            disk_used_bytes: said.workspace_bytes,
            volume_bytes: said.volume_bytes,
            disk_limit_bytes: limits.disk_bytes,
            uptime_ms: said.uptime_ms,
            problem: said.problem.as_ref().map(|problem| problem.chars().take(MOST_OF_PROBLEM).collect()),
        }
    }
}

/// The span of time to return.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// From this time on; a day before its end by default.
    since: Option<DateTime<Utc>>,
    /// Before this time; now by default.
    until: Option<DateTime<Utc>>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(get_usage), of_workspace(READ))
        .operation(routes!(get_usage_history), of_workspace(READ))
}

/// Tells what a workspace uses now, as it is seen inside.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/usage",
    tag = "workspaces",
    params(WorkspaceParam),
    responses((status = 200, description = "CPU, memory, processes and disk.", body = UsageView), OnGuest)
)]
async fn get_usage(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<UsageView>, Refusal> {
    let limits = state.workspaces().get(caller.project(), id).await?.row.spec.limits;
    let said = state.workspaces().guest(caller.project(), id).await?.call(|guest| guest.usage()).await?;
    Ok(Json(UsageView::new(&said, &limits)))
}

/// Tells what a workspace used over a span of time, with totals.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/usage/history",
    tag = "workspaces",
    params(WorkspaceParam, HistoryQuery),
    responses((status = 200, description = "The samples and what they add up to.", body = UsageHistoryView), OnWorkspace)
)]
async fn get_usage_history(
    caller: Caller,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_shown_are_the_workspaces_and_not_the_hosts() {
        let said = Usage {
            memory_limit_bytes: Some(64 << 30),
            disk_total_bytes: Some(1 << 40),
            disk_used_bytes: Some(1 << 39),
            workspace_bytes: Some(7),
            ..Usage::default()
        };
        let limits = ResourceLimits { cpu: 0.5, memory_bytes: 1 << 30, disk_bytes: 2 << 30, pids: 64 };
        let shown = UsageView::new(&said, &limits);
        assert_eq!((shown.memory_limit_bytes, shown.disk_limit_bytes), (limits.memory_bytes, limits.disk_bytes));
        assert_eq!((shown.disk_used_bytes, shown.processes_limit, shown.cpu_limit), (Some(7), 64, 0.5));
    }
}
