//! Workspaces: callers make, show, list and destroy them, and change their states.

pub mod idle;
pub mod request;
pub mod sessions;
pub mod update;
pub mod view;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use emergent_core::{IdempotencyKey, StateKind, Workspace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    request::{CreateWorkspace, ListQuery, WaitQuery},
    view::WorkspaceView,
};
use crate::{
    auth::Caller,
    http::{
        extract::{JsonBody, Query, WorkspacePath},
        problem::{OnWorkspace, ProblemKind, Refusal, Usual, of_failed_create},
        route::{READ, Routes, WRITE, of_project, of_workspace},
    },
    resources::params::WorkspaceParam,
    state::ApiState,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A page of workspaces, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceList {
    /// The workspaces.
    pub items: Vec<WorkspaceView>,
    /// The cursor of the next page: send it as `cursor`; null when there is none.
    pub next_cursor: Option<String>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(create_workspace), of_project(WRITE).makes_workspaces().audited_as_change())
        .operation(routes!(list_workspaces), of_project(READ))
        .operation(routes!(get_workspace), of_workspace(READ).answered_by_row())
        .operation(routes!(update::update_workspace), of_workspace(WRITE).audited_as_change())
        .operation(routes!(destroy_workspace), of_workspace(WRITE).audited_as_change())
        .operation(routes!(stop_workspace), of_workspace(WRITE).audited_as_change())
        .operation(routes!(resume_workspace), of_workspace(WRITE).audited_as_change())
        .operation(routes!(pause_workspace), of_workspace(WRITE).audited_as_change())
}

/// Makes a workspace.
///
/// Waits up to `wait_seconds` for the workspace to be ready, and answers 201 then, else 202 while it is being made: ask
/// for it at `Location`. With an `Idempotency-Key` a repeated request finds the workspace of the first one.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces",
    tag = "workspaces",
    params(
        WaitQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A key that the caller chooses, up to 255 visible ASCII characters: for 24 hours, requests with the same key count as one.")
    ),
    request_body(content = CreateWorkspace, description = "What is left out is decided by the server's settings."),
    responses(
        (status = 201, description = "The workspace is ready.", body = WorkspaceView, headers(("Location" = String, description = "Its URL."))),
        (status = 202, description = "The workspace is being made; ask again at `Location`.", body = WorkspaceView, headers(("Location" = String, description = "Its URL."))),
        (status = 429, description = "The limit on workspaces is reached; `Retry-After` says when to try again.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        OnWorkspace,
    )
)]
async fn create_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
    body: Option<JsonBody<CreateWorkspace>>,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let request = body.map(|JsonBody(request)| request).unwrap_or_default().into_core();
    let workspaces = state.workspaces();
    let made = workspaces.create(caller.project(), request, key).await?;
    let workspace = workspaces.wait_ready(caller.project(), made.row.id, query.wait()).await?;
    if let Some(refusal) = of_failed_create(&workspace) {
        return Err(refusal);
    }
    let status = status_of_made(workspace.word()).ok_or_else(|| {
        let detail = format!("workspace {} was destroyed while it was being made; make another one", workspace.row.id);
        Refusal::new(ProblemKind::WrongState, detail)
    })?;
    Ok((status, [(header::LOCATION, location(&workspace)?)], Json(WorkspaceView::from(workspace))).into_response())
}

/// Returns the status of the answer to a create when the workspace is in this state; `None` when somebody has destroyed
/// it meanwhile.
fn status_of_made(state: StateKind) -> Option<StatusCode> {
    match state {
        StateKind::Creating => Some(StatusCode::ACCEPTED),
        StateKind::Destroying | StateKind::Destroyed => None,
        StateKind::Ready
        | StateKind::Paused
        | StateKind::Stopping
        | StateKind::Stopped
        | StateKind::Starting
        | StateKind::Error => Some(StatusCode::CREATED),
    }
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let key = text.parse::<IdempotencyKey>();
    key.map(Some).map_err(|error| Refusal::of_field(ProblemKind::InvalidValue, "Idempotency-Key", error.to_string()))
}

fn location(workspace: &Workspace) -> Result<HeaderValue, Refusal> {
    HeaderValue::try_from(format!("/api/v1/agent/workspaces/{}", workspace.row.id))
        .map_err(|error| Refusal::new(ProblemKind::Internal, error.to_string()))
}

/// Lists workspaces, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces",
    tag = "workspaces",
    params(ListQuery),
    responses((status = 200, description = "A page of workspaces.", body = WorkspaceList), Usual)
)]
async fn list_workspaces(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<WorkspaceList>, Refusal> {
    let (filter, page) = query.into_core()?;
    let page = state.workspaces().list(caller.project(), filter, page).await?.map(WorkspaceView::from);
    Ok(Json(WorkspaceList { items: page.items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// Shows a workspace.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}",
    tag = "workspaces",
    params(WorkspaceParam),
    responses((status = 200, description = "The workspace.", body = WorkspaceView), OnWorkspace)
)]
async fn get_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<WorkspaceView>, Refusal> {
    Ok(Json(state.workspaces().get(caller.project(), id).await?.into()))
}

/// Destroys a workspace and all that is in it.
///
/// When the call returns, nothing of the workspace is left but its row. Destroying a destroyed workspace changes
/// nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/agent/workspaces/{id}",
    tag = "workspaces",
    params(WorkspaceParam),
    responses((status = 204, description = "It is gone."), OnWorkspace)
)]
async fn destroy_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<StatusCode, Refusal> {
    state.workspaces().destroy(caller.project(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops a workspace.
///
/// The workspace's processes end; its files stay. Stopping a stopped workspace changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/stop",
    tag = "workspaces",
    params(WorkspaceParam),
    responses((status = 200, description = "The workspace, stopped.", body = WorkspaceView), OnWorkspace)
)]
async fn stop_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<WorkspaceView>, Refusal> {
    Ok(Json(state.workspaces().stop(caller.project(), id).await?.into()))
}

/// Resumes a paused workspace, or starts a stopped one.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/resume",
    tag = "workspaces",
    params(WorkspaceParam),
    responses(
        (status = 200, description = "The workspace, ready.", body = WorkspaceView),
        (status = 429, description = "The limit on workspaces is reached.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        OnWorkspace,
    )
)]
async fn resume_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<WorkspaceView>, Refusal> {
    Ok(Json(state.workspaces().resume(caller.project(), id).await?.into()))
}

/// Freezes a workspace with its processes.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/pause",
    tag = "workspaces",
    params(WorkspaceParam),
    responses((status = 200, description = "The workspace, paused.", body = WorkspaceView), OnWorkspace)
)]
async fn pause_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<WorkspaceView>, Refusal> {
    Ok(Json(state.workspaces().pause(caller.project(), id).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_that_was_destroyed_meanwhile_is_not_told_as_made() {
        for (state, expected) in [
            (StateKind::Creating, Some(202)),
            (StateKind::Ready, Some(201)),
            (StateKind::Stopped, Some(201)),
            (StateKind::Destroying, None),
            (StateKind::Destroyed, None),
        ] {
            assert_eq!(status_of_made(state).map(|status| status.as_u16()), expected, "{state}");
        }
    }
}
