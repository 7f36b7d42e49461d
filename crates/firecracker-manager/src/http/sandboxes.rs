//! `/sandboxes`

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{
    CreateBody, SandboxBody, Shared,
    extract::{JsonBody, SandboxPath},
    problem::Problem,
};

/// `POST /sandboxes`
pub(super) async fn create(
    State(shared): State<Shared>,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<(StatusCode, Json<SandboxBody>), Problem> {
    let (record, made) = shared.sandboxes.create(body.into()).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(record.into())))
}

/// `GET /sandboxes`
pub(super) async fn list(State(shared): State<Shared>) -> Json<Value> {
    let sandboxes: Vec<SandboxBody> = shared.sandboxes.list().into_iter().map(Into::into).collect();
    Json(json!({ "sandboxes": sandboxes }))
}

/// `GET /sandboxes/{id}`
pub(super) async fn get(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxBody>, Problem> {
    Ok(Json(shared.sandboxes.get(id)?.into()))
}

/// `DELETE /sandboxes/{id}`
pub(super) async fn destroy(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Json<Value>, Problem> {
    shared.sandboxes.destroy(id).await?;
    Ok(Json(json!({ "sandbox_id": id.to_string(), "status": "destroyed" })))
}

/// `POST /sandboxes/{id}/pause`
pub(super) async fn pause(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxBody>, Problem> {
    Ok(Json(shared.sandboxes.pause(id).await?.into()))
}

/// `POST /sandboxes/{id}/resume`
pub(super) async fn resume(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxBody>, Problem> {
    Ok(Json(shared.sandboxes.resume(id).await?.into()))
}

/// `POST /sandboxes/{id}/stop`
pub(super) async fn stop(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxBody>, Problem> {
    Ok(Json(shared.sandboxes.stop(id).await?.into()))
}

/// `POST /sandboxes/{id}/fork`
pub(super) async fn fork(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<(StatusCode, Json<SandboxBody>), Problem> {
    let record = shared.sandboxes.fork(id, body.into()).await?;
    Ok((StatusCode::CREATED, Json(record.into())))
}
