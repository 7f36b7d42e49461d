//! Snapshots of workspaces, and workspaces that are copies of others.

pub mod request;
pub mod view;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use emergent_core::SnapshotStateKind;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    request::{CreateSnapshot, ForkWorkspace, ListSnapshotsQuery},
    view::SnapshotView,
};
use super::workspaces::{
    idempotency_key,
    request::WaitQuery,
    view::{State as WorkspaceState, WorkspaceView},
};
use crate::{
    auth::Caller,
    http::{
        extract::{JsonBody, Query, SnapshotPath, WorkspacePath},
        problem::{OnSnapshot, OnWorkspace, ProblemKind, Refusal, Usual, of_failed_snapshot},
        route::{READ, Routes, WRITE, of_project, of_workspace},
    },
    resources::params::{SnapshotParam, WorkspaceParam},
    state::ApiState,
};

/// A page of snapshots, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub items: Vec<SnapshotView>,
    /// The cursor of the next page: send it as `cursor`; null when there is none.
    pub next_cursor: Option<String>,
}

/// The copies of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ForkList {
    /// The copies, each in its present state: one that failed says why, and the others exist all the same.
    pub items: Vec<WorkspaceView>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(create_snapshot), of_workspace(WRITE).makes_copies().audited_as_change())
        .operation(routes!(fork_workspace), of_workspace(WRITE).makes_copies().audited_as_change())
        .operation(routes!(list_snapshots), of_project(READ))
        .operation(routes!(get_snapshot), of_project(READ))
        .operation(routes!(delete_snapshot), of_project(WRITE).audited_as_change())
}

/// Takes a snapshot of a workspace.
///
/// A snapshot holds the files of `/workspace` and all that was changed outside, such as installed packages; a running
/// workspace stands still while they are copied, so that all of them are of one moment. Processes and memory are not in
/// the snapshot. Waits up to `wait_seconds` for it to be ready, and answers 201 then, else 202 while it is being taken:
/// ask for it at `Location`.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/snapshots",
    tag = "snapshots",
    params(
        WorkspaceParam,
        WaitQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A key that the caller chooses, up to 255 visible ASCII characters: for 24 hours, requests with the same key count as one.")
    ),
    request_body(content = CreateSnapshot, description = "Everything may be left out."),
    responses(
        (status = 201, description = "The snapshot is ready.", body = SnapshotView, headers(("Location" = String, description = "Its URL."))),
        (status = 202, description = "The snapshot is being taken; ask again at `Location`.", body = SnapshotView, headers(("Location" = String, description = "Its URL."))),
        OnWorkspace,
    )
)]
async fn create_snapshot(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
    body: Option<JsonBody<CreateSnapshot>>,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let request = body.map(|JsonBody(request)| request).unwrap_or_default().into_core();
    let workspaces = state.workspaces();
    let made = workspaces.snapshots().take(caller.project(), id, request, key).await?;
    let snapshot = workspaces.snapshots().wait_ready(caller.project(), made.new.id, query.wait()).await?;
    if let Some(refusal) = of_failed_snapshot(&snapshot) {
        return Err(refusal);
    }
    let status = match snapshot.state.word() {
        SnapshotStateKind::Creating => StatusCode::ACCEPTED,
        SnapshotStateKind::Ready | SnapshotStateKind::Deleting | SnapshotStateKind::Error => StatusCode::CREATED,
    };
    let location = HeaderValue::try_from(format!("/api/v1/agent/snapshots/{}", snapshot.new.id))
        .map_err(|error| Refusal::new(ProblemKind::Internal, error.to_string()))?;
    Ok((status, [(header::LOCATION, location)], Json(SnapshotView::from(snapshot))).into_response())
}

/// Makes copies of a workspace.
///
/// Each copy has the workspace's files of one moment, those outside `/workspace` too, and is independent from then on;
/// properties that the request leaves out are those of the workspace. Either all copies are admitted or none is. Waits
/// up to `wait_seconds` for them to be ready, and answers 201 when none is still being made, else 202.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/fork",
    tag = "snapshots",
    params(
        WorkspaceParam,
        WaitQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A key that the caller chooses, up to 255 visible ASCII characters: for 24 hours, requests with the same key count as one.")
    ),
    request_body(content = ForkWorkspace, description = "Everything may be left out: one copy that is like the workspace."),
    responses(
        (status = 201, description = "The copies are made; one that failed says why.", body = ForkList),
        (status = 202, description = "Some are still being made.", body = ForkList),
        (status = 429, description = "There is no room for all of them; `Retry-After` says when to try again.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        OnWorkspace,
    )
)]
async fn fork_workspace(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
    body: Option<JsonBody<ForkWorkspace>>,
) -> Result<(StatusCode, Json<ForkList>), Refusal> {
    let key = idempotency_key(&headers)?;
    let request = body.map(|JsonBody(request)| request).unwrap_or_default().into_core();
    let workspaces = state.workspaces();
    let made = workspaces.snapshots().fork(caller.project(), id, request, key).await?;
    let settle = made.iter().map(|copy| workspaces.wait_ready(caller.project(), copy.row.id, query.wait()));
    let items = try_join_all(settle).await?.into_iter().map(WorkspaceView::from).collect::<Vec<_>>();
    let under_way = items.iter().any(|copy| copy.state == WorkspaceState::Creating);
    Ok((if under_way { StatusCode::ACCEPTED } else { StatusCode::CREATED }, Json(ForkList { items })))
}

/// Lists snapshots, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agent/snapshots",
    tag = "snapshots",
    params(ListSnapshotsQuery),
    responses((status = 200, description = "A page of snapshots.", body = SnapshotList), Usual)
)]
async fn list_snapshots(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<ListSnapshotsQuery>,
) -> Result<Json<SnapshotList>, Refusal> {
    let (filter, page) = query.into_core()?;
    let page = state.workspaces().snapshots().list(caller.project(), filter, page).await?.map(SnapshotView::from);
    Ok(Json(SnapshotList { items: page.items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// Shows a snapshot.
#[utoipa::path(
    get,
    path = "/api/v1/agent/snapshots/{id}",
    tag = "snapshots",
    params(SnapshotParam),
    responses((status = 200, description = "The snapshot.", body = SnapshotView), OnSnapshot)
)]
async fn get_snapshot(
    caller: Caller,
    State(state): State<ApiState>,
    SnapshotPath(id): SnapshotPath,
) -> Result<Json<SnapshotView>, Refusal> {
    Ok(Json(state.workspaces().snapshots().get(caller.project(), id).await?.into()))
}

/// Deletes a snapshot.
///
/// Workspaces that were made from the snapshot go on; those that are being made from it are waited for.
#[utoipa::path(
    delete,
    path = "/api/v1/agent/snapshots/{id}",
    tag = "snapshots",
    params(SnapshotParam),
    responses((status = 204, description = "It is gone."), OnSnapshot)
)]
async fn delete_snapshot(
    caller: Caller,
    State(state): State<ApiState>,
    SnapshotPath(id): SnapshotPath,
) -> Result<StatusCode, Refusal> {
    state.workspaces().snapshots().delete(caller.project(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
