//! `/snapshots`

use axum::{extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{
    Shared, SnapshotBody, SnapshotRequestBody,
    done::Done,
    extract::{JsonBody, SandboxPath, SnapshotPath},
    problem::Problem,
};

/// `POST /sandboxes/{id}/snapshots`
pub(super) async fn take(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<SnapshotRequestBody>,
) -> Result<(StatusCode, Done<SnapshotBody>), Problem> {
    let info = shared.sandboxes.snapshot(id, body.into()).await?;
    Ok((StatusCode::CREATED, Done::well(info.into())))
}

/// `GET /snapshots`
pub(super) async fn list(State(shared): State<Shared>) -> Result<Done<Value>, Problem> {
    let snapshots: Vec<SnapshotBody> = shared.sandboxes.snapshots()?.into_iter().map(Into::into).collect();
    Ok(Done::well(json!({ "snapshots": snapshots })))
}

/// `DELETE /snapshots/{id}`
pub(super) async fn delete(
    State(shared): State<Shared>,
    SnapshotPath(id): SnapshotPath,
) -> Result<Done<Value>, Problem> {
    shared.sandboxes.delete_snapshot(id).await?;
    Ok(Done::well(json!({ "snapshot_id": id.to_string(), "status": "deleted" })))
}
