//! Files.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use emergent_guest_proto::{
    GuestPath, RunAs,
    files::{FileKind, PathQuery, UploadQuery},
    tools::WriteRequest,
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared,
    extract::{JsonBody, Query, SandboxPath},
    problem::{Kind, Problem},
};

/// The longest file that `files/read` answers.
const READ_LIMIT: u64 = 10 * 1024 * 1024;

/// A file to write.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WriteBody {
    path: GuestPath,
    content: String,
    #[serde(default)]
    encoding: Encoding,
}

/// How contents are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// A directory to list; `/workspace` when none is named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    path: Option<GuestPath>,
}

/// A path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    path: GuestPath,
}

/// A file to upload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetQuery {
    path: GuestPath,
    #[serde(default)]
    mode: Option<u32>,
}

/// `POST /sandboxes/{id}/files/write`
pub(super) async fn write(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<WriteBody>,
) -> Result<Json<Value>, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    if body.encoding == Encoding::Utf8 {
        let written = guest.write(&WriteRequest { file_path: body.path, content: body.content }).await?;
        return Ok(Json(json!({ "path": written.file_path, "size": written.bytes_written })));
    }
    let bytes = BASE64_STANDARD.decode(&body.content);
    let bytes =
        bytes.map_err(|error| Problem::of_field(Kind::InvalidValue, "content", format!("no base64: {error}")))?;
    let query = UploadQuery { path: body.path, mode: None, user: RunAs::Agent };
    let stream = futures::stream::once(std::future::ready(Ok(bytes::Bytes::from(bytes))));
    let info = guest.upload(&query, stream).await?;
    Ok(Json(json!({ "path": info.path, "size": info.size })))
}

/// `GET /sandboxes/{id}/files/read`
pub(super) async fn read(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<FileQuery>,
) -> Result<Json<Value>, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    let path = query.path;
    let mut download = guest.download(&PathQuery { path: path.clone(), user: RunAs::Agent }, None).await?;
    if download.size > READ_LIMIT {
        let detail = format!("the file has {} bytes, and this call answers 10 MiB; use files/download", download.size);
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = download.body.try_next().await? {
        bytes.extend_from_slice(&part);
    }
    let size = bytes.len();
    Ok(Json(match String::from_utf8(bytes.into()) {
        Ok(content) => json!({ "path": path, "content": content, "encoding": "utf-8", "size": size }),
        Err(binary) => {
            let content = BASE64_STANDARD.encode(binary.as_bytes());
            json!({ "path": path, "content": content, "encoding": "base64", "size": size })
        }
    }))
}

/// `GET /sandboxes/{id}/files/list`
pub(super) async fn list(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    let path = match query.path {
        Some(path) => path,
        None => GuestPath::parse("/workspace").expect("it is a path"),
    };
    let list = guest.list_files(&PathQuery { path: path.clone(), user: RunAs::Agent }).await?;
    let files = list.entries.iter().map(|entry| {
        let name = entry.path.as_path().file_name().unwrap_or_default().to_string_lossy();
        json!({
            "name": name,
            "path": entry.path,
            "type": entry.kind,
            "is_directory": entry.kind == FileKind::Directory,
            "size": entry.size,
            "mode": entry.mode,
            "modified_at": chrono::DateTime::from_timestamp_millis(entry.modified_at_ms),
        })
    });
    let files: Vec<_> = files.collect();
    Ok(Json(json!({ "path": path, "files": files, "truncated": list.truncated })))
}

/// `PUT` or `POST /sandboxes/{id}/files/upload`: the body is the file, of any size.
pub(super) async fn upload(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<TargetQuery>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    let query = UploadQuery { path: query.path, mode: query.mode, user: RunAs::Agent };
    let info = guest.upload(&query, body.into_data_stream().map_err(std::io::Error::other)).await?;
    Ok(Json(json!({ "path": info.path, "size": info.size })))
}

/// `GET /sandboxes/{id}/files/download`: the answer is the file.
pub(super) async fn download(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<FileQuery>,
) -> Result<Response, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    let download = guest.download(&PathQuery { path: query.path, user: RunAs::Agent }, None).await?;
    let size = download.size;
    let mut response = Body::from_stream(download.body.map(|part| part.map_err(std::io::Error::other))).into_response();
    let headers = response.headers_mut();
    // What the guest says of it is not to be believed by a browser.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}
