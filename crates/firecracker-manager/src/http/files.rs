//! Files.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use emergent_guest_client::new_call_id;
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
    done::Done,
    extract::{JsonBody, Query, SandboxPath, Upload},
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
    /// Another way to say that the encoding is base64.
    #[serde(default)]
    is_base64: bool,
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

/// A file to read; in base64 where that is asked for, or where it is no UTF-8.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    path: GuestPath,
    #[serde(default)]
    is_base64: bool,
}

/// A file to upload; the path may stand in a form instead.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetQuery {
    path: Option<GuestPath>,
    #[serde(default)]
    mode: Option<u32>,
}

/// `POST /sandboxes/{id}/files/write`
pub(super) async fn write(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<WriteBody>,
) -> Result<Done<Value>, Problem> {
    let guest = shared.sandboxes.guest(id)?;
    if body.encoding == Encoding::Utf8 && !body.is_base64 {
        let request = WriteRequest { file_path: body.path, content: body.content, expected_sha256: None };
        let written = guest.write(&new_call_id(), &request).await?;
        return Ok(Done::well(json!({ "path": written.file_path, "size": written.bytes_written })));
    }
    let bytes = BASE64_STANDARD.decode(&body.content);
    let bytes =
        bytes.map_err(|error| Problem::of_field(Kind::InvalidValue, "content", format!("no base64: {error}")))?;
    let query = UploadQuery { path: body.path, mode: None, user: RunAs::Agent, expected_sha256: None };
    let stream = futures::stream::once(std::future::ready(Ok(bytes::Bytes::from(bytes))));
    let info = guest.upload(&new_call_id(), &query, stream).await?;
    Ok(Done::well(json!({ "path": info.path, "size": info.size })))
}

/// `GET /sandboxes/{id}/files/read`
pub(super) async fn read(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<ReadQuery>,
) -> Result<Done<Value>, Problem> {
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
    let (content, encoding) = match String::from_utf8(bytes.into()) {
        Ok(content) if !query.is_base64 => (content, "utf-8"),
        Ok(content) => (BASE64_STANDARD.encode(content), "base64"),
        Err(binary) => (BASE64_STANDARD.encode(binary.as_bytes()), "base64"),
    };
    let is_base64 = encoding == "base64";
    Ok(Done::well(
        json!({ "path": path, "content": content, "encoding": encoding, "is_base64": is_base64, "size": size }),
    ))
}

/// `GET /sandboxes/{id}/files/list`
pub(super) async fn list(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<ListQuery>,
) -> Result<Done<Value>, Problem> {
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
            "is_dir": entry.kind == FileKind::Directory,
            "size": entry.size,
            "mode": entry.mode,
            "modified_at": chrono::DateTime::from_timestamp_millis(entry.modified_at_ms),
        })
    });
    let files: Vec<_> = files.collect();
    Ok(Done::well(json!({ "path": path, "files": files, "entries": files, "truncated": list.truncated })))
}

/// `PUT` or `POST /sandboxes/{id}/files/upload`: the body is the file, of any size, or a form that has it.
pub(super) async fn upload(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<TargetQuery>,
    upload: Upload,
) -> Result<Done<Value>, Problem> {
    let path = query.path.or(upload.path).ok_or_else(|| {
        Problem::of_field(
            Kind::InvalidRequest,
            "path",
            "say where the file goes, in the query or before it in the form",
        )
    })?;
    let guest = shared.sandboxes.guest(id)?;
    let query = UploadQuery { path, mode: query.mode, user: RunAs::Agent, expected_sha256: None };
    let info = guest.upload(&new_call_id(), &query, upload.contents).await?;
    Ok(Done::well(json!({ "path": info.path, "size": info.size })))
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
