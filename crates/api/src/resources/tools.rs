//! The seven tools. Their requests and answers are the guest's own, unchanged.

mod git;
pub(crate) mod mcp;
mod stream;

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use emergent_core::Purpose;
use emergent_guest_proto::tools::{
    BashRequest, BashResult, EditRequest, EditResult, GlobRequest, GlobResult, GrepRequest, GrepResult, ReadRequest,
    ReadResult, WriteRequest, WriteResult,
};
use emergent_store::Tool;
use utoipa_axum::routes;

use self::stream::StreamQuery;
use crate::{
    auth::Caller,
    http::{
        extract::{JsonBody, Query, WorkspacePath},
        problem::{OnGuest, Refusal},
        route::{COMMAND, CONTENTS, READ, Routes, WRITE, of_workspace},
        sse,
    },
    resources::{
        calls::CallName,
        params::{CallParam, WorkspaceParam},
    },
    state::ApiState,
};

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(bash), of_workspace(WRITE).tool(Tool::Bash).body(COMMAND))
        .operation(routes!(exec), of_workspace(WRITE).tool(Tool::Bash).body(COMMAND))
        .operation(routes!(read), of_workspace(READ).tool(Tool::Read))
        .operation(routes!(write), of_workspace(WRITE).tool(Tool::Write).body(CONTENTS))
        .operation(routes!(edit), of_workspace(WRITE).tool(Tool::Edit).body(CONTENTS))
        .operation(routes!(glob), of_workspace(READ).tool(Tool::Glob))
        .operation(routes!(grep), of_workspace(READ).tool(Tool::Grep))
        .operation(routes!(git::git), of_workspace(READ).tool(Tool::Git))
}

/// Runs a command and waits for the shell to exit.
///
/// A non-zero exit is a success of the call. Losing the connection does not end the command: it can be found at
/// `…/processes/{execution_id}`. With `Accept: text/event-stream` or `?stream=true` the output comes as it is written,
/// as the events `execution` (first), `stdout`, `stderr` (`{offset, text}`, or `{offset, base64}` where it is not
/// UTF-8), `dropped` and `result` (last); `error` in place of `result` when the stream fails. A request that repeats
/// `Last-Event-ID` reattaches to the execution and does not run it again.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/bash",
    tag = "tools",
    params(WorkspaceParam, StreamQuery),
    request_body = BashRequest,
    responses(
        (status = 200, description = "What the command did.", content(
            (BashResult = "application/json"),
            (sse::OutputEvent = "text/event-stream"),
        )),
        OnGuest,
    )
)]
async fn bash(
    caller: Caller,
    State(state): State<ApiState>,
    path: WorkspacePath,
    query: Query<StreamQuery>,
    headers: HeaderMap,
    body: JsonBody<BashRequest>,
) -> Result<Response, Refusal> {
    run(caller, state, path, query, headers, body).await
}

/// Runs a command: another name for `bash`.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/exec",
    tag = "tools",
    params(WorkspaceParam, StreamQuery),
    request_body = BashRequest,
    responses(
        (status = 200, description = "What the command did.", content(
            (BashResult = "application/json"),
            (sse::OutputEvent = "text/event-stream"),
        )),
        OnGuest,
    )
)]
async fn exec(
    caller: Caller,
    State(state): State<ApiState>,
    path: WorkspacePath,
    query: Query<StreamQuery>,
    headers: HeaderMap,
    body: JsonBody<BashRequest>,
) -> Result<Response, Refusal> {
    run(caller, state, path, query, headers, body).await
}

async fn run(
    caller: Caller,
    state: ApiState,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<BashRequest>,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Run).await?;
    if query.stream.unwrap_or_else(|| sse::is_wanted(&headers)) {
        return stream::bash(guest, request, &headers, caller.facts().clone()).await;
    }
    let result = guest.bash(request).await?;
    caller.facts().ran(&result);
    Ok(Json(result).into_response())
}

/// Shows a text file with numbered lines, lists a directory, or tells what a binary file is.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/read",
    tag = "tools",
    params(WorkspaceParam),
    request_body = ReadRequest,
    responses((status = 200, description = "What stands at the path.", body = ReadResult), OnGuest)
)]
async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<ReadRequest>,
) -> Result<Json<ReadResult>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.read(&request)).await?))
}

/// Writes a whole text file, atomically. Parents are made.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/write",
    tag = "tools",
    params(WorkspaceParam, CallParam),
    request_body = WriteRequest,
    responses((status = 200, description = "What was written.", body = WriteResult), OnGuest)
)]
async fn write(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(request): JsonBody<WriteRequest>,
) -> Result<Json<WriteResult>, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    Ok(Json(guest.call(|guest| guest.write(&call, &request)).await?))
}

/// Replaces text in a file. Text that does not occur, or occurs more than once, changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/edit",
    tag = "tools",
    params(WorkspaceParam, CallParam),
    request_body = EditRequest,
    responses((status = 200, description = "What was replaced.", body = EditResult), OnGuest)
)]
async fn edit(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(request): JsonBody<EditRequest>,
) -> Result<Json<EditResult>, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    Ok(Json(guest.call(|guest| guest.edit(&call, &request)).await?))
}

/// Finds files by name, the one changed last first.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/glob",
    tag = "tools",
    params(WorkspaceParam),
    request_body = GlobRequest,
    responses((status = 200, description = "The files found.", body = GlobResult), OnGuest)
)]
async fn glob(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<GlobRequest>,
) -> Result<Json<GlobResult>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.glob(&request)).await?))
}

/// Searches the contents of files.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/grep",
    tag = "tools",
    params(WorkspaceParam),
    request_body = GrepRequest,
    responses((status = 200, description = "The lines found.", body = GrepResult), OnGuest)
)]
async fn grep(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<GrepRequest>,
) -> Result<Json<GrepResult>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.grep(&request)).await?))
}
