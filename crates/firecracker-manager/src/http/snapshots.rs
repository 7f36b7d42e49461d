//! `/snapshots`

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{
    Shared, SnapshotBody, SnapshotRequestBody,
    extract::{JsonBody, SandboxPath, SnapshotPath},
    problem::Problem,
};

/// `POST /sandboxes/{id}/snapshots`
pub(super) async fn take(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<SnapshotRequestBody>,
) -> Result<(StatusCode, Json<SnapshotBody>), Problem> {
    let info = shared.sandboxes.snapshot(id, body.into()).await?;
    Ok((StatusCode::CREATED, Json(info.into())))
}

/// `GET /snapshots`
pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let snapshots: Vec<SnapshotBody> = shared.sandboxes.snapshots()?.into_iter().map(Into::into).collect();
    Ok(Json(json!({ "snapshots": snapshots })))
}

/// `DELETE /snapshots/{id}`
pub(super) async fn delete(
    State(shared): State<Shared>,
    SnapshotPath(id): SnapshotPath,
) -> Result<Json<Value>, Problem> {
    shared.sandboxes.delete_snapshot(id).await?;
    Ok(Json(json!({ "snapshot_id": id.to_string(), "status": "deleted" })))
}
