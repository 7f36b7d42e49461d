//! `/sandboxes`

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CreateBody, SandboxBody, Shared,
    done::Done,
    extract::{JsonBody, Query, SandboxPath},
    problem::Problem,
};

/// The query of a list of sandboxes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatQuery {
    #[serde(default)]
    format: Format,
}

/// The JSON form of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// An object with the list as `sandboxes`.
    #[default]
    Object,
    /// The list alone.
    List,
}

/// `POST /sandboxes`
pub(super) async fn create(
    State(shared): State<Shared>,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<(StatusCode, Done<SandboxBody>), Problem> {
    let (record, made) = shared.sandboxes.create(body.into()).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Done::well(record.into())))
}

/// `GET /sandboxes`
pub(super) async fn list(State(shared): State<Shared>, Query(query): Query<FormatQuery>) -> Response {
    let sandboxes: Vec<SandboxBody> = shared.sandboxes.list().into_iter().map(Into::into).collect();
    match query.format {
        Format::Object => Done::well(json!({ "sandboxes": sandboxes })).into_response(),
        Format::List => Json(sandboxes).into_response(),
    }
}

/// `GET /sandboxes/{id}`
pub(super) async fn get(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Done<SandboxBody>, Problem> {
    Ok(Done::well(shared.sandboxes.get(id)?.into()))
}

/// `DELETE /sandboxes/{id}`
pub(super) async fn destroy(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Done<Value>, Problem> {
    shared.sandboxes.destroy(id).await?;
    Ok(Done::well(json!({ "sandbox_id": id.to_string(), "status": "destroyed" })))
}

/// `POST /sandboxes/{id}/pause`
pub(super) async fn pause(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Done<SandboxBody>, Problem> {
    Ok(Done::well(shared.sandboxes.pause(id).await?.into()))
}

/// `POST /sandboxes/{id}/resume`
pub(super) async fn resume(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Done<SandboxBody>, Problem> {
    Ok(Done::well(shared.sandboxes.resume(id).await?.into()))
}

/// `POST /sandboxes/{id}/stop`
pub(super) async fn stop(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
) -> Result<Done<SandboxBody>, Problem> {
    Ok(Done::well(shared.sandboxes.stop(id).await?.into()))
}

/// `POST /sandboxes/{id}/fork`
pub(super) async fn fork(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<(StatusCode, Done<SandboxBody>), Problem> {
    let record = shared.sandboxes.fork(id, body.into()).await?;
    Ok((StatusCode::CREATED, Done::well(record.into())))
}
