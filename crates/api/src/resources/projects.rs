//! Projects with their quotas, and the capacity in use.
//!
//! A token sees its own project. The holders of tokens of the `default` project are the server's administrators: they
//! see every project, and they alone set quotas.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::request::Parts,
};
use chrono::{DateTime, Utc};
use emergent_auth::Principal;
use emergent_core::{Capacity, ProjectId, Quota, QuotaUse};
use emergent_store::Project;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{JsonBody, path_parameter},
        problem::{ProblemKind, Refusal, Usual},
        route::{READ, Routes, WRITE, of_project},
        size::ByteSize,
    },
    state::ApiState,
};

/// The largest number of workspaces, MCP servers or snapshots that a quota can name.
const MOST_WORKSPACES: u32 = 1_000_000;
/// The largest number of cores that a quota can name.
const MOST_CPU: f64 = 1_000_000.0;
/// The largest amount of memory or disk that a quota can name: 1 EiB.
const MOST_BYTES: u64 = 1 << 60;
/// The largest number of processes that a quota can name.
const MOST_PIDS: u64 = 1_000_000_000;

/// The projects that the caller sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// The projects, by name.
    pub items: Vec<ProjectView>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Project)]
pub struct ProjectView {
    /// The project's id.
    pub id: Uuid,
    /// The project's name.
    pub name: String,
    /// The time at which the project was first named.
    pub created_at: DateTime<Utc>,
    /// The project's quota.
    pub quota: QuotaView,
}

/// The quota of a project; null stands for no limit. Active workspaces are those that are creating, ready or paused.
/// Workspaces and hosted MCP servers count with their limits, whatever they use of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Quota)]
#[serde(deny_unknown_fields)]
pub struct QuotaView {
    /// Active workspaces.
    #[serde(default, deserialize_with = "emergent_guest_proto::whole::option")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub max_active: Option<u32>,
    /// Workspaces that are not destroyed, stopped ones too.
    #[serde(default, deserialize_with = "emergent_guest_proto::whole::option")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub max_total: Option<u32>,
    /// CPU cores of the active workspaces and the hosted MCP servers together.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub max_cpu: Option<f64>,
    /// Memory of the active workspaces and the hosted MCP servers together.
    #[serde(default)]
    pub max_memory: Option<ByteSize>,
    /// Processes and threads of the active workspaces and the hosted MCP servers together.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub max_pids: Option<u64>,
    /// Disk of the workspaces that are not destroyed, of the hosted MCP servers and of the snapshots together. A
    /// snapshot counts with its size, and with its workspace's disk limit while it is being taken.
    #[serde(default)]
    pub max_disk: Option<ByteSize>,
    /// Hosted MCP servers, whatever state they are in.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub max_mcp_servers: Option<u32>,
    /// Snapshots; a fork needs one for a moment.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub max_snapshots: Option<u32>,
}

/// The part of the quota that a project uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = QuotaUse)]
pub struct QuotaUseView {
    /// Active workspaces.
    pub active: u64,
    /// Workspaces that are not destroyed.
    pub total: u64,
    /// CPU cores of the active workspaces and the hosted MCP servers together.
    pub cpu: f64,
    /// Memory of the active workspaces and the hosted MCP servers together, in bytes.
    pub memory: u64,
    /// Processes and threads that the active workspaces and the hosted MCP servers may have together.
    pub pids: u64,
    /// Disk of workspaces, hosted MCP servers and snapshots together, in bytes.
    pub disk: u64,
    /// Hosted MCP servers.
    pub mcp_servers: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// A project's quota, and the part of it that is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectQuota {
    /// The quota.
    pub quota: QuotaView,
    /// The part of the quota that is used.
    pub used: QuotaUseView,
}

/// The capacity in use and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Capacity)]
pub struct CapacityView {
    /// Active workspaces on all servers: your project's, or those of all projects if your token is of the default
    /// project.
    pub active: u64,
    /// The greatest number of active workspaces of all projects together (`WORKSPACE_MAX_CONCURRENT`).
    pub limit: u32,
    /// The share of the limit that is in use, in percent.
    pub used_pct: u64,
    /// The share from which on the server warns, in percent (`WORKSPACE_ALERT_THRESHOLD_PCT`).
    pub threshold_pct: u8,
    /// Whether the share in use has reached the threshold.
    pub near_limit: bool,
    /// Your project's quota.
    pub quota: QuotaView,
    /// The part of the quota that your project uses.
    pub used: QuotaUseView,
}

/// The project that the path names.
struct ProjectPath(ProjectId);

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
struct ProjectParam {
    /// The project's id.
    id: Uuid,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(list_projects), of_project(READ))
        .operation(routes!(get_quota), of_project(READ))
        .operation(routes!(set_quota), of_project(WRITE))
        .operation(routes!(get_capacity), of_project(READ))
}

/// Lists the projects that you see: your own, or all if you are an administrator.
#[utoipa::path(
    get,
    path = "/api/v1/projects",
    tag = "projects",
    responses((status = 200, description = "The projects.", body = ProjectList), Usual)
)]
async fn list_projects(caller: Caller, State(state): State<ApiState>) -> Result<Json<ProjectList>, Refusal> {
    let store = state.store();
    let sees_all = caller.principal().grants.is_administrator;
    let mut projects = store.projects_list().await?;
    projects.retain(|project| sees_all || project.id == caller.project());
    Ok(Json(ProjectList { items: projects.into_iter().map(Into::into).collect() }))
}

/// Shows a project's quota, and the part of it that is used.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{id}/quota",
    tag = "projects",
    params(ProjectParam),
    responses(
        (status = 200, description = "The quota and its use.", body = ProjectQuota),
        (status = 404, description = "You see no such project.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn get_quota(
    caller: Caller,
    State(state): State<ApiState>,
    ProjectPath(id): ProjectPath,
) -> Result<Json<ProjectQuota>, Refusal> {
    Ok(Json(quota_of(&state, caller.principal(), id).await?))
}

/// Sets a project's quota as a whole; a limit that is left out is removed.
///
/// Needs a token of the server's `default` project. Workspaces, snapshots and servers that the project has stay.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{id}/quota",
    tag = "projects",
    params(ProjectParam),
    request_body = QuotaView,
    responses(
        (status = 200, description = "The quota and its use.", body = ProjectQuota),
        (status = 404, description = "You see no such project.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn set_quota(
    caller: Caller,
    State(state): State<ApiState>,
    ProjectPath(id): ProjectPath,
    JsonBody(quota): JsonBody<QuotaView>,
) -> Result<Json<ProjectQuota>, Refusal> {
    if !caller.principal().grants.is_administrator {
        if caller.project() != id {
            return Err(no_such_project());
        }
        return Err(Refusal::new(
            ProblemKind::ProjectNotAllowed,
            "only a token of an administrator sets quotas; `emergent token ls` shows which tokens are",
        ));
    }
    state.store().projects_set_quota(id, quota.into()).await?.ok_or_else(no_such_project)?;
    Ok(Json(quota_of(&state, caller.principal(), id).await?))
}

/// Shows the capacity in use and its limits: of your project and, if you are an administrator, of the whole installation.
#[utoipa::path(
    get,
    path = "/api/v1/agent/capacity",
    tag = "projects",
    responses((status = 200, description = "What is in use.", body = CapacityView), Usual)
)]
async fn get_capacity(caller: Caller, State(state): State<ApiState>) -> Result<Json<CapacityView>, Refusal> {
    let of_all = caller.principal().grants.is_administrator;
    Ok(Json(state.workspaces().capacity(caller.project(), of_all).await?.into()))
}

async fn quota_of(state: &ApiState, caller: &Principal, id: ProjectId) -> Result<ProjectQuota, Refusal> {
    let store = state.store();
    let sees_it = caller.project == id || caller.grants.is_administrator;
    let known = sees_it && store.projects_list().await?.iter().any(|project| project.id == id);
    if !known {
        return Err(no_such_project());
    }
    let (quota, used) = store.projects_quota(id).await?;
    Ok(ProjectQuota { quota: quota.into(), used: used.into() })
}

fn no_such_project() -> Refusal {
    Refusal::new(ProblemKind::ProjectNotFound, "you see no project of this id; list them with GET /api/v1/projects")
}

impl<S: Send + Sync> FromRequestParts<S> for ProjectPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| no_such_project())
    }
}

impl Check for QuotaView {
    fn check(&self, faults: &mut Faults) {
        faults.range("max_active", self.max_active, 0..=MOST_WORKSPACES);
        faults.range("max_total", self.max_total, 0..=MOST_WORKSPACES);
        faults.range("max_cpu", self.max_cpu, 0.0..=MOST_CPU);
        faults.range("max_memory", self.max_memory, ByteSize(0)..=ByteSize(MOST_BYTES));
        faults.range("max_pids", self.max_pids, 0..=MOST_PIDS);
        faults.range("max_disk", self.max_disk, ByteSize(0)..=ByteSize(MOST_BYTES));
        faults.range("max_mcp_servers", self.max_mcp_servers, 0..=MOST_WORKSPACES);
        faults.range("max_snapshots", self.max_snapshots, 0..=MOST_WORKSPACES);
    }
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        let Project { id, name, created_at, quota } = project;
        Self { id: id.as_uuid(), name, created_at, quota: quota.into() }
    }
}

impl From<Quota> for QuotaView {
    fn from(quota: Quota) -> Self {
        let Quota {
            max_active,
            max_total,
            max_cpu,
            max_memory_bytes,
            max_pids,
            max_disk_bytes,
            max_mcp_servers,
            max_snapshots,
        } = quota;
        Self {
            max_active,
            max_total,
            max_cpu,
            max_memory: max_memory_bytes.map(ByteSize),
            max_pids,
            max_disk: max_disk_bytes.map(ByteSize),
            max_mcp_servers,
            max_snapshots,
        }
    }
}

impl From<QuotaView> for Quota {
    fn from(quota: QuotaView) -> Self {
        let QuotaView {
            max_active,
            max_total,
            max_cpu,
            max_memory,
            max_pids,
            max_disk,
            max_mcp_servers,
            max_snapshots,
        } = quota;
        Self {
            max_active,
            max_total,
            max_cpu,
            max_memory_bytes: max_memory.map(|size| size.0),
            max_pids,
            max_disk_bytes: max_disk.map(|size| size.0),
            max_mcp_servers,
            max_snapshots,
        }
    }
}

impl From<QuotaUse> for QuotaUseView {
    fn from(used: QuotaUse) -> Self {
        let QuotaUse { active, total, cpu, memory_bytes, pids, disk_bytes, mcp_servers, snapshots } = used;
        Self { active, total, cpu, memory: memory_bytes, pids, disk: disk_bytes, mcp_servers, snapshots }
    }
}

impl From<Capacity> for CapacityView {
    fn from(capacity: Capacity) -> Self {
        let Capacity { active, limit, threshold_pct, near_limit, quota, used } = capacity;
        Self {
            active,
            limit,
            used_pct: active * 100 / u64::from(limit.max(1)),
            threshold_pct,
            near_limit,
            quota: quota.into(),
            used: used.into(),
        }
    }
}
