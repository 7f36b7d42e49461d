//! `/api/v1/mcp/servers`: hosted MCP servers. Their endpoints are in `mcp.rs`, beside the routes.

mod files;
pub mod request;
pub mod view;

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use emergent_mcp::CallError;
use emergent_mcp_hosting::ServerCallError;
use utoipa_axum::routes;

use self::{
    request::{McpCall, McpServerRequest, McpWaitQuery},
    view::{McpAnswer, McpCallError, McpLogs, McpServerList, McpServerView, McpState},
};
use crate::{
    auth::{Allowed, Caller},
    http::{
        extract::{JsonBody, Query, path_parameter},
        problem::{OnMcpServer, ProblemKind, Refusal, Usual},
        route::{READ, Routes, USE_MCP, WRITE, of_mcp_server, of_project},
    },
    resources::params::McpServerParam,
    state::ApiState,
};

/// The word by which a path names a server: its id or its name.
pub(crate) struct McpServerPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for McpServerPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        path_parameter(parts, state, "id").await.map(Self)
    }
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(create_mcp_server), of_project(WRITE).audited_as_change())
        .operation(routes!(list_mcp_servers), of_project(READ))
        .operation(routes!(get_mcp_server), of_mcp_server(READ).answered_by_row())
        .operation(routes!(update_mcp_server), of_mcp_server(WRITE).audited_as_change())
        .operation(routes!(delete_mcp_server), of_mcp_server(WRITE).audited_as_change())
        .operation(routes!(restart_mcp_server), of_mcp_server(WRITE).audited_as_change())
        .operation(routes!(mcp_server_logs), of_mcp_server(READ))
        .operation(routes!(call_mcp_server), of_mcp_server(USE_MCP).audited_as_tool())
        .merge(files::routes())
}

/// Registers an MCP server and starts it.
///
/// Waits up to `wait_seconds` for its program's first answer, and answers 201 then, else 202 while it is still being
/// started.
#[utoipa::path(
    post,
    path = "/api/v1/mcp/servers",
    tag = "mcp",
    params(McpWaitQuery),
    request_body = McpServerRequest,
    responses(
        (status = 201, description = "It runs, or is known not to; `state` says which.", body = McpServerView, headers(("Location" = String, description = "Its URL."))),
        (status = 202, description = "It is being started; ask again at `Location`.", body = McpServerView, headers(("Location" = String, description = "Its URL."))),
        (status = 404, description = "Your project has no workspace that `volumes` names.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is a server of this name.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn create_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<McpWaitQuery>,
    JsonBody(request): JsonBody<McpServerRequest>,
) -> Result<Response, Refusal> {
    let hosting = state.hosting();
    let made = hosting.create(caller.project(), request.into_new()?).await?;
    let server: McpServerView = hosting.wait_ready(caller.project(), made.id, query.wait()).await?.into();
    let status = if server.state == McpState::Starting { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    let location = HeaderValue::try_from(format!("/api/v1/mcp/servers/{}", server.id))
        .map_err(|error| Refusal::new(ProblemKind::Internal, error.to_string()))?;
    Ok((status, [(header::LOCATION, location)], Json(server)).into_response())
}

/// Lists hosted MCP servers by name.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers",
    tag = "mcp",
    responses((status = 200, description = "The project's servers.", body = McpServerList), Usual)
)]
async fn list_mcp_servers(caller: Caller, State(state): State<ApiState>) -> Result<Json<McpServerList>, Refusal> {
    let servers = state.hosting().list(caller.project()).await?;
    Ok(Json(McpServerList { items: servers.into_iter().map(Into::into).collect() }))
}

/// Shows a hosted MCP server.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers/{id}",
    tag = "mcp",
    params(McpServerParam),
    responses((status = 200, description = "The server.", body = McpServerView), OnMcpServer)
)]
async fn get_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
) -> Result<Json<McpServerView>, Refusal> {
    let id = state.hosting().find(caller.project(), &id_or_name).await?.id;
    Ok(Json(state.hosting().get(caller.project(), id).await?.into()))
}

/// Changes a hosted MCP server.
///
/// The server's processes go on where only `call_timeout_ms` or `restart_policy` changes. Else they are started again,
/// and where the image, the package, volumes, limits, network or user change, the server's container is made anew; its
/// volumes stay. Answers when the server runs again, or is known not to; `state` says which.
#[utoipa::path(
    patch,
    path = "/api/v1/mcp/servers/{id}",
    tag = "mcp",
    params(McpServerParam),
    request_body = McpServerRequest,
    responses((status = 200, description = "The server as it is now.", body = McpServerView), OnMcpServer)
)]
async fn update_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    JsonBody(request): JsonBody<McpServerRequest>,
) -> Result<Json<McpServerView>, Refusal> {
    let id = state.hosting().find(caller.project(), &id_or_name).await?.id;
    Ok(Json(state.hosting().update(caller.project(), id, request.into_update()?).await?.into()))
}

/// Deletes a hosted MCP server.
///
/// Its processes get the end of their input, SIGTERM, and SIGKILL after 30 s; then its container, its volumes and its
/// secrets go.
#[utoipa::path(
    delete,
    path = "/api/v1/mcp/servers/{id}",
    tag = "mcp",
    params(McpServerParam),
    responses((status = 204, description = "It is gone."), OnMcpServer)
)]
async fn delete_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
) -> Result<StatusCode, Refusal> {
    let id = state.hosting().find(caller.project(), &id_or_name).await?.id;
    state.hosting().delete(caller.project(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restarts a hosted MCP server.
///
/// Its processes are ended in order, and its container is started again with its files. Answers when it runs again, or
/// is known not to; `state` says which.
#[utoipa::path(
    post,
    path = "/api/v1/mcp/servers/{id}/restart",
    tag = "mcp",
    params(McpServerParam),
    responses((status = 200, description = "The server as it is now.", body = McpServerView), OnMcpServer)
)]
async fn restart_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
) -> Result<Json<McpServerView>, Refusal> {
    let id = state.hosting().find(caller.project(), &id_or_name).await?.id;
    Ok(Json(state.hosting().restart(caller.project(), id).await?.into()))
}

/// Shows what a hosted MCP server has written on its standard error.
#[utoipa::path(
    get,
    path = "/api/v1/mcp/servers/{id}/logs",
    tag = "mcp",
    params(McpServerParam),
    responses(
        (status = 200, description = "The last 64 KiB of each process's standard error.", body = McpLogs),
        OnMcpServer,
    )
)]
async fn mcp_server_logs(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
) -> Result<Json<McpLogs>, Refusal> {
    let hosting = state.hosting();
    let id = hosting.find(caller.project(), &id_or_name).await?.id;
    let server = hosting.get(caller.project(), id).await?;
    let (message, last_exit) = (server.message, server.last_exit.map(Into::into));
    // A server that does not run has its last words to show.
    let processes = match hosting.logs(caller.project(), id).await {
        Ok(logs) => logs.into_iter().map(Into::into).collect(),
        Err(error) if last_exit.is_none() && message.is_none() => return Err(error.into()),
        Err(_) => Vec::new(),
    };
    Ok(Json(McpLogs { message, processes, last_exit }))
}

/// Calls a method of a hosted MCP server.
///
/// The handshake is the server's of ours; calls of one server are answered by a process that is kept warm. An error
/// that the MCP server answers is an answer here; a time-out restarts nothing.
#[utoipa::path(
    post,
    path = "/api/v1/mcp/servers/{id}/call",
    tag = "mcp",
    params(McpServerParam),
    request_body = McpCall,
    responses(
        (status = 200, description = "The server's answer.", body = McpAnswer),
        (status = 504, description = "No answer in time; nothing was restarted.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        OnMcpServer
    )
)]
pub(crate) async fn call_mcp_server(
    caller: Caller,
    State(state): State<ApiState>,
    McpServerPath(id_or_name): McpServerPath,
    JsonBody(call): JsonBody<McpCall>,
) -> Result<Json<McpAnswer>, Refusal> {
    let hosting = state.hosting();
    let server = hosting.find(caller.project(), &id_or_name).await?;
    let allowed = Allowed::of(caller.mcp(), &server.name)?;
    let params = allowed.params(&call.method, call.params)?;
    let at_most = call.timeout_ms.map(Duration::from_millis);
    match hosting.call(caller.project(), server.id, &call.method, params, at_most).await {
        Ok(result) => Ok(Json(McpAnswer { result: Some(result), error: None })),
        Err(ServerCallError::Call(CallError::Rpc { code, message, data })) => {
            Ok(Json(McpAnswer { result: None, error: Some(McpCallError { code, message, data }) }))
        }
        Err(error) => Err(error.into()),
    }
}
