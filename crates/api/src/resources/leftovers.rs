//! Leftovers: sandboxes and snapshots of the engines that were handed over to somebody and that no row accounts for, as
//! after the restore of a backup. Administrators can list, adopt and remove them.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use emergent_core::{AdoptRequest, Adopted, LeftoverRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::tokens::is_project_name;
use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{JsonBody, LeftoverPath},
        problem::{Refusal, Usual},
        route::{READ, Routes, WRITE, of_project},
    },
    resources::params::LeftoverParam,
    state::ApiState,
};

/// A leftover: a sandbox or a snapshot that an engine has and no row accounts for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftoverView {
    /// The id of the workspace, the hosted MCP server or the snapshot.
    pub id: Uuid,
    /// `workspace`, `mcp_server` or `snapshot`.
    pub kind: String,
    /// The provider that has the leftover.
    pub provider: String,
    /// The server that made the leftover.
    pub made_by: Uuid,
    /// The server that found the leftover, and that can adopt or remove it.
    pub found_by: Uuid,
    /// The time at which the leftover was made.
    pub made_at: DateTime<Utc>,
    /// The time at which the leftover was found.
    pub found_at: DateTime<Utc>,
    /// The time at which the leftover is removed (`WORKSPACE_LEFTOVER_RETENTION_DAYS` after it was found).
    pub removed_at: DateTime<Utc>,
}

/// The leftovers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftoverList {
    /// The leftovers; those that were found last come first.
    pub items: Vec<LeftoverView>,
}

/// The new owner of a leftover.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptLeftover {
    /// The project that owns the workspace or snapshot from now on; `default` when left out.
    pub project: Option<String>,
    /// A display name.
    pub name: Option<String>,
}

/// The workspace or snapshot that a leftover has become.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AdoptedView {
    /// The id of the workspace or snapshot, which is the leftover's id.
    pub id: Uuid,
    /// The kind: `workspace`, which is stopped, or `snapshot`, which is ready.
    pub kind: String,
}

impl Check for AdoptLeftover {
    fn check(&self, faults: &mut Faults) {
        if self.project.as_deref().is_some_and(|name| !is_project_name(name)) {
            faults.add("project", "it takes 1 to 100 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`");
        }
        let is_bad = |name: &str| !(1..=200).contains(&name.chars().count()) || name.chars().any(char::is_control);
        if self.name.as_deref().is_some_and(is_bad) {
            faults.add("name", "it takes 1 to 200 characters, none of them a control character");
        }
    }
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(list_leftovers), of_project(READ))
        .operation(routes!(adopt_leftover), of_project(WRITE))
        .operation(routes!(remove_leftover), of_project(WRITE))
}

/// Lists the leftovers: sandboxes and snapshots of the engines that were handed over to somebody and that no row
/// accounts for. Needs an administrator's token.
#[utoipa::path(
    get,
    path = "/api/v1/admin/leftovers",
    tag = "server",
    responses((status = 200, description = "The leftovers.", body = LeftoverList), Usual)
)]
async fn list_leftovers(caller: Caller, State(state): State<ApiState>) -> Result<Json<LeftoverList>, Refusal> {
    caller.require_administrator()?;
    let kept = state.workspaces().config().leftover_retention;
    let items = state.workspaces().leftovers().list().await?;
    Ok(Json(LeftoverList { items: items.into_iter().map(|leftover| view(leftover, kept)).collect() }))
}

/// Turns a leftover into a workspace, which is stopped, or a snapshot, which is ready. Needs a token of the default
/// project.
#[utoipa::path(
    post,
    path = "/api/v1/admin/leftovers/{id}/adopt",
    tag = "server",
    params(LeftoverParam),
    request_body = AdoptLeftover,
    responses(
        (status = 200, description = "What it has become.", body = AdoptedView),
        (status = 404, description = "There is no such leftover.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It cannot be adopted, or not here.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual
    )
)]
async fn adopt_leftover(
    caller: Caller,
    State(state): State<ApiState>,
    LeftoverPath(id): LeftoverPath,
    JsonBody(request): JsonBody<AdoptLeftover>,
) -> Result<Json<AdoptedView>, Refusal> {
    caller.require_administrator()?;
    let project = match request.project {
        None => caller.project(),
        Some(name) => state.store().projects_ensure(&name).await?,
    };
    let adopted = state.workspaces().leftovers().adopt(id, AdoptRequest { project, name: request.name }).await?;
    let (id, kind) = match adopted {
        Adopted::Workspace(id) => (id.as_uuid(), "workspace"),
        Adopted::Snapshot(id) => (id.as_uuid(), "snapshot"),
    };
    Ok(Json(AdoptedView { id, kind: kind.to_owned() }))
}

/// Removes a leftover with all its files, now. Needs an administrator's token.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/leftovers/{id}",
    tag = "server",
    params(LeftoverParam),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such leftover.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another server has it.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual
    )
)]
async fn remove_leftover(
    caller: Caller,
    State(state): State<ApiState>,
    LeftoverPath(id): LeftoverPath,
) -> Result<StatusCode, Refusal> {
    caller.require_administrator()?;
    state.workspaces().leftovers().remove(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(leftover: LeftoverRow, kept: chrono::Duration) -> LeftoverView {
    LeftoverView {
        id: leftover.id,
        kind: leftover.kind.as_str().to_owned(),
        provider: leftover.provider.as_str().to_owned(),
        made_by: leftover.maker.as_uuid(),
        found_by: leftover.server.as_uuid(),
        made_at: leftover.made_at,
        found_at: leftover.found_at,
        removed_at: leftover.found_at.checked_add_signed(kept).unwrap_or(DateTime::<Utc>::MAX_UTC),
    }
}
