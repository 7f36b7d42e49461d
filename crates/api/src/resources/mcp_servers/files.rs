//! Files of a hosted MCP server's container: what its program is to work on, and what comes of that.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use emergent_guest_client::{Guest, new_call_id};
use emergent_guest_proto::files::FileInfo;
use futures::TryStreamExt as _;
use utoipa_axum::routes;

use super::McpServerPath;
use crate::{
    auth::Caller,
    http::{
        extract::{FileBody, Query, RawBody},
        problem::{OnMcpServerFiles, Refusal},
        route::{READ, Routes, WRITE, of_mcp_server},
    },
    resources::{
        files::{FileQuery, TargetQuery},
        params::McpServerParam,
    },
    state::ApiState,
};

pub(super) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(download_mcp_server_file), of_mcp_server(READ))
        .operation(routes!(upload_mcp_server_file), of_mcp_server(WRITE).audited_as_change())
        .operation(routes!(download_mcp_server_archive), of_mcp_server(READ))
        .operation(routes!(upload_mcp_server_archive), of_mcp_server(WRITE).audited_as_change())
        .operation(routes!(stat_mcp_server_file), of_mcp_server(READ))
}

/// Downloads a file of a hosted MCP server.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers/{id}/files/content",
    tag = "mcp",
    params(McpServerParam, FileQuery),
    responses(
        (status = 200, description = "The whole file.", body = Vec<u8>, content_type = "application/octet-stream"),
        OnMcpServerFiles,
    )
)]
async fn download_mcp_server_file(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    Query(query): Query<FileQuery>,
) -> Result<Response, Refusal> {
    let guest = guest(&state, &caller, &id_or_name).await?;
    let file = guest.download(&query.into_guest(), None).await?;
    let mut answer = streamed("application/octet-stream", Body::from_stream(file.body.map_err(std::io::Error::other)));
    answer.headers_mut().insert(header::CONTENT_LENGTH, file.size.into());
    Ok(answer)
}

/// Uploads a file to a hosted MCP server.
///
/// The body is streamed, whatever its length, and the file appears at its path when all of it has arrived. The body is
/// the file, or a form (`multipart/form-data`) with one file.
#[utoipa::path(
    put,
    path = "/api/v1/mcp/servers/{id}/files/content",
    tag = "mcp",
    params(McpServerParam, TargetQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Any bytes, of any length."),
    responses((status = 200, description = "The file as it is now.", body = FileInfo), OnMcpServerFiles)
)]
async fn upload_mcp_server_file(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    Query(query): Query<TargetQuery>,
    FileBody(bytes): FileBody,
) -> Result<Json<FileInfo>, Refusal> {
    state.hosting().may_write()?;
    let guest = guest(&state, &caller, &id_or_name).await?;
    Ok(Json(guest.upload(&new_call_id(), &query.into_guest(), bytes).await?))
}

/// Downloads a file or a directory tree of a hosted MCP server as an uncompressed tar.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers/{id}/files/archive",
    tag = "mcp",
    params(McpServerParam, FileQuery),
    responses(
        (status = 200, description = "The archive.", body = Vec<u8>, content_type = "application/x-tar"),
        OnMcpServerFiles,
    )
)]
async fn download_mcp_server_archive(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    Query(query): Query<FileQuery>,
) -> Result<Response, Refusal> {
    let guest = guest(&state, &caller, &id_or_name).await?;
    let archive = guest.archive_download(&query.into_guest()).await?;
    Ok(streamed("application/x-tar", Body::from_stream(archive.map_err(std::io::Error::other))))
}

/// Unpacks an uncompressed tar below a directory of a hosted MCP server, which is made if it is not there.
#[utoipa::path(
    put,
    path = "/api/v1/mcp/servers/{id}/files/archive",
    tag = "mcp",
    params(McpServerParam, FileQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A tar of any length."),
    responses((status = 204, description = "It is unpacked."), OnMcpServerFiles)
)]
async fn upload_mcp_server_archive(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    Query(query): Query<FileQuery>,
    RawBody(bytes): RawBody,
) -> Result<StatusCode, Refusal> {
    state.hosting().may_write()?;
    let guest = guest(&state, &caller, &id_or_name).await?;
    guest.archive_upload(&new_call_id(), &query.into_guest(), bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells what stands at a path of a hosted MCP server. A symbolic link is not followed.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers/{id}/files/stat",
    tag = "mcp",
    params(McpServerParam, FileQuery),
    responses((status = 200, description = "What stands there.", body = FileInfo), OnMcpServerFiles)
)]
async fn stat_mcp_server_file(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    Query(query): Query<FileQuery>,
) -> Result<Json<FileInfo>, Refusal> {
    Ok(Json(guest(&state, &caller, &id_or_name).await?.stat(&query.into_guest()).await?))
}

/// The guest of a server's container, whether the server's program runs or not.
async fn guest(state: &ApiState, caller: &Caller, id_or_name: &str) -> Result<Guest, Refusal> {
    let hosting = state.hosting();
    let id = hosting.find(caller.project(), id_or_name).await?.id;
    Ok(hosting.guest(caller.project(), id).await?)
}

fn streamed(kind: &'static str, body: Body) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    (headers, body).into_response()
}
