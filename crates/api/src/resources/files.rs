//! Raw files: contents of any size and kind, whole trees as tar, and what stands in a directory.

mod range;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use emergent_core::Purpose;
use emergent_guest_proto::{
    GuestPath, RunAs, Sha256Hex,
    files::{FileInfo, FileList, MoveRequest, PathQuery, PathRequest, RemoveRequest, UploadQuery},
};
use emergent_store::Tool;
use futures::TryStreamExt as _;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use self::range::{ByteRange, Wanted};
use crate::{
    auth::Caller,
    facts::Arguments,
    http::{
        check::{Check, Faults},
        extract::{FileBody, JsonBody, Query, RawBody, WorkspacePath},
        problem::{OnGuest, ProblemKind, Refusal},
        route::{READ, Routes, WRITE, of_workspace},
    },
    resources::{
        calls::CallName,
        params::{CallParam, WorkspaceParam},
    },
    state::ApiState,
};

/// Names a path in the workspace.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileQuery {
    /// Absolute, or relative to `/workspace`. A path that is not UTF-8 is written `$'caf\xe9'`.
    #[param(value_type = String, example = "src/main.rs")]
    path: GuestPath,
    /// Whom the file system sees: `agent` (uid 1000) or, where the workspace allows it, `root`.
    #[serde(default)]
    #[param(inline)]
    user: RunAs,
}

/// Names the target of an upload.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TargetQuery {
    /// Absolute, or relative to `/workspace`. Parents are made.
    #[param(value_type = String, example = "data/input.bin")]
    path: GuestPath,
    /// Permission bits in octal, such as `755`; a file that is replaced keeps its own, a new one gets `644`.
    #[param(pattern = "^[0-7]{3,4}$")]
    mode: Option<String>,
    /// The owner of the file: `agent` (uid 1000) or, where the workspace allows it, `root`.
    #[serde(default)]
    #[param(inline)]
    user: RunAs,
    /// The SHA-256 that the file's contents have to have, in hexadecimal: where they have another, nothing is replaced.
    #[param(value_type = Option<String>, pattern = "^[0-9a-fA-F]{64}$")]
    expected_sha256: Option<Sha256Hex>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(download_file), of_workspace(READ).tool(Tool::Read))
        .operation(routes!(upload_file), of_workspace(WRITE).tool(Tool::Write))
        .operation(routes!(download_archive), of_workspace(READ).tool(Tool::Read))
        .operation(routes!(upload_archive), of_workspace(WRITE).tool(Tool::Write))
        .operation(routes!(stat_file), of_workspace(READ).tool(Tool::Read))
        .operation(routes!(list_files), of_workspace(READ).tool(Tool::Read))
        .operation(routes!(make_directory), of_workspace(WRITE).tool(Tool::Write))
        .operation(routes!(move_file), of_workspace(WRITE).tool(Tool::Write))
        .operation(routes!(remove_file), of_workspace(WRITE).tool(Tool::Write))
}

/// Downloads a file.
///
/// Its bytes are streamed, whatever their number. `Range` is honoured for one range of bytes.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/files/content",
    tag = "files",
    params(WorkspaceParam, FileQuery, ("Range" = Option<String>, Header, description = "Such as `bytes=0-1023`.")),
    responses(
        (status = 200, description = "The whole file.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
        OnGuest,
    )
)]
async fn download_file(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    let query = query.into_guest();
    let wanted = ByteRange::from_headers(&headers);
    let range = match &wanted {
        None => None,
        Some(wanted) => {
            let size = guest.call(|guest| guest.stat(&query)).await?.size;
            match wanted.within(size) {
                Wanted::Bytes { first, last } => Some((first, Some(last))),
                // Whoever goes on with a download, or reads in pieces, is told of an empty file what it is.
                Wanted::Nothing if size == 0 => None,
                Wanted::Nothing => return Ok(unsatisfiable(size)),
            }
        }
    };
    let file = guest.call(|guest| guest.download(&query, range)).await?;
    let mut answer = Body::from_stream(guest.keep_under_way(file.body).map_err(std::io::Error::other)).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.size));
    if range.is_some() && file.size > 0 {
        let content_range = format!("bytes {}-{}/{}", file.offset, file.offset + file.size - 1, file.total);
        headers.insert(header::CONTENT_RANGE, header_value(&content_range)?);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(answer)
}

fn unsatisfiable(size: u64) -> Response {
    let detail = format!("the file has {size} bytes; ask for a range that begins before its end");
    let mut answer = Refusal::new(ProblemKind::RangeNotSatisfiable, detail).into_response();
    if let Ok(value) = header_value(&format!("bytes */{size}")) {
        answer.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    answer
}

fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|error| Refusal::new(ProblemKind::Internal, error.to_string()))
}

/// Uploads a file.
///
/// The body is streamed, whatever its length, and the file appears at its path when all of it has arrived: an upload
/// that breaks leaves what was there before. The body is the file, or a form (`multipart/form-data`) with one file.
#[utoipa::path(
    put,
    path = "/api/v1/agent/workspaces/{id}/files/content",
    tag = "files",
    params(WorkspaceParam, CallParam, TargetQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Any bytes, of any length."),
    responses((status = 200, description = "The file as it is now.", body = FileInfo), OnGuest)
)]
async fn upload_file(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    Query(query): Query<TargetQuery>,
    FileBody(bytes): FileBody,
) -> Result<Json<FileInfo>, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    let target = query.into_guest();
    Ok(Json(guest.call(|guest| guest.upload(&call, &target, bytes)).await?))
}

/// Downloads a file or a directory tree as an uncompressed tar.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/files/archive",
    tag = "files",
    params(WorkspaceParam, FileQuery),
    responses(
        (status = 200, description = "The archive.", body = Vec<u8>, content_type = "application/x-tar"),
        OnGuest,
    )
)]
async fn download_archive(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<FileQuery>,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    let query = query.into_guest();
    let archive = guest.call(|guest| guest.archive_download(&query)).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-tar"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(guest.keep_under_way(archive).map_err(std::io::Error::other))).into_response())
}

/// Unpacks an uncompressed tar below a directory, which is made if it is not there.
#[utoipa::path(
    put,
    path = "/api/v1/agent/workspaces/{id}/files/archive",
    tag = "files",
    params(WorkspaceParam, CallParam, FileQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A tar of any length."),
    responses((status = 204, description = "It is unpacked."), OnGuest)
)]
async fn upload_archive(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    Query(query): Query<FileQuery>,
    RawBody(bytes): RawBody,
) -> Result<StatusCode, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    let query = query.into_guest();
    guest.call(|guest| guest.archive_upload(&call, &query, bytes)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells what stands at a path. A symbolic link is not followed.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/files/stat",
    tag = "files",
    params(WorkspaceParam, FileQuery),
    responses((status = 200, description = "What stands there.", body = FileInfo), OnGuest)
)]
async fn stat_file(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<FileQuery>,
) -> Result<Json<FileInfo>, Refusal> {
    let query = query.into_guest();
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.stat(&query)).await?))
}

/// Lists a directory, sorted by name.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/files/list",
    tag = "files",
    params(WorkspaceParam, FileQuery),
    responses((status = 200, description = "What stands in it.", body = FileList), OnGuest)
)]
async fn list_files(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<FileQuery>,
) -> Result<Json<FileList>, Refusal> {
    let query = query.into_guest();
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.list_files(&query)).await?))
}

/// Makes a directory, and its parents.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/files/mkdir",
    tag = "files",
    params(WorkspaceParam, CallParam),
    request_body = PathRequest,
    responses((status = 200, description = "The directory.", body = FileInfo), OnGuest)
)]
async fn make_directory(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(request): JsonBody<PathRequest>,
) -> Result<Json<FileInfo>, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    Ok(Json(guest.call(|guest| guest.mkdir(&call, &request)).await?))
}

/// Moves a file or directory.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/files/move",
    tag = "files",
    params(WorkspaceParam, CallParam),
    request_body = MoveRequest,
    responses((status = 200, description = "What stands at the new path.", body = FileInfo), OnGuest)
)]
async fn move_file(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(request): JsonBody<MoveRequest>,
) -> Result<Json<FileInfo>, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Write).await?;
    Ok(Json(guest.call(|guest| guest.move_path(&call, &request)).await?))
}

/// Removes a file or directory.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/files/remove",
    tag = "files",
    params(WorkspaceParam, CallParam),
    request_body = RemoveRequest,
    responses((status = 204, description = "It is gone."), OnGuest)
)]
async fn remove_file(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    CallName(call): CallName,
    JsonBody(request): JsonBody<RemoveRequest>,
) -> Result<StatusCode, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    guest.call(|guest| guest.remove(&call, &request)).await?;
    state.workspaces().note_removal(&guest);
    Ok(StatusCode::NO_CONTENT)
}

// === impl FileQuery ===

impl Check for FileQuery {
    fn check(&self, _: &mut Faults) {}

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("path", &self.path);
    }
}

impl FileQuery {
    pub(super) fn into_guest(self) -> PathQuery {
        PathQuery { path: self.path, user: self.user }
    }
}

// === impl TargetQuery ===

impl Check for TargetQuery {
    fn check(&self, faults: &mut Faults) {
        let is_octal =
            |mode: &str| (3..=4).contains(&mode.len()) && mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        if self.mode.as_deref().is_some_and(|mode| !is_octal(mode)) {
            faults.add("mode", "it takes three or four octal digits, such as 644 or 0755");
        }
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("path", &self.path);
    }
}

impl TargetQuery {
    /// The guest's words for it. To be called on what was checked.
    pub(super) fn into_guest(self) -> UploadQuery {
        let mode = self.mode.and_then(|mode| u32::from_str_radix(&mode, 8).ok());
        UploadQuery { path: self.path, mode, user: self.user, expected_sha256: self.expected_sha256 }
    }
}
