//! Readers of requests: every failure is a problem that names the faulty part.

use std::io;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use emergent_budget::{Limits, Pace, ReadError};
use emergent_guest_client::form::{self, FormError};
use emergent_guest_proto::{GuestPath, words};
use emergent_types::{SnapshotId, error_chain};
use futures::{StreamExt as _, stream::BoxStream};
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::SandboxId;

/// The limits of a JSON body: the contents of a file, or a few fields.
const JSON: Limits = Limits::json(32 << 20, 50_000);

/// A JSON object; an empty body is an empty object.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A query string.
pub(crate) struct Query<T>(pub(crate) T);

/// A file: the body itself, or the one file of a form.
pub(crate) struct Upload {
    /// The path that the form names for the file.
    pub(crate) path: Option<GuestPath>,
    /// The file's bytes.
    pub(crate) contents: BoxStream<'static, io::Result<Bytes>>,
}

/// The sandbox whose id is in the request's path.
pub(crate) struct SandboxPath(pub(crate) SandboxId);

/// The snapshot whose id is in the request's path.
pub(crate) struct SnapshotPath(pub(crate) SnapshotId);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let empty = request.body().is_end_stream();
        if !empty {
            require_json(request.headers())?;
        }
        let body = read_all(request.into_body(), JSON).await?;
        let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
        // A list would be read as an object's values in order, which no caller means.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Kind::Malformed, "the body is not a JSON object"));
        }
        let mut reader = serde_json::Deserializer::from_slice(&body);
        let value: T = serde_path_to_error::deserialize(&mut reader).map_err(refusal)?;
        reader.end().map_err(|error| Problem::new(Kind::Malformed, format!("after the JSON: {error}")))?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let reader = serde_urlencoded::Deserializer::new(pairs);
        serde_path_to_error::deserialize(reader).map(Self).map_err(|error| {
            let field = error.path().to_string();
            Problem::of_field(Kind::InvalidRequest, &field, words::explain(&error.into_inner().to_string()))
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form_type = content_type.filter(|it| form::is_multipart(it)).map(str::to_owned);
        let contents = request.into_body().into_data_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed();
        let Some(form_type) = form_type else { return Ok(Self { path: None, contents }) };
        let form = form::read(&form_type, contents).await.map_err(|error| {
            let kind = if matches!(error, FormError::NotAForm) { Kind::UnsupportedMediaType } else { Kind::Malformed };
            Problem::new(kind, error_chain(&error))
        })?;
        let path = form.fields.get("path").map(|path| GuestPath::parse(path)).transpose();
        let path = path.map_err(|error| Problem::of_field(Kind::InvalidRequest, "path", error))?;
        Ok(Self { path, contents: form.contents })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SandboxPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let detail = "what stands in the path is not a sandbox id, which is a UUID; GET /sandboxes lists them";
        let id = path_id(parts, state).await;
        id.map(Self).ok_or_else(|| Problem::new(Kind::SandboxNotFound, detail))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SnapshotPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let detail = "what stands in the path is not a snapshot id, which is a UUID; GET /snapshots lists them";
        let id = path_id(parts, state).await;
        id.map(Self).ok_or_else(|| Problem::new(Kind::SnapshotNotFound, detail))
    }
}

async fn path_id<S: Send + Sync, T: std::str::FromStr>(parts: &mut Parts, state: &S) -> Option<T> {
    let parameters = RawPathParams::from_request_parts(parts, state).await.ok()?;
    parameters.iter().find(|(key, _)| *key == "id").and_then(|(_, value)| value.parse().ok())
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("this call takes JSON; send Content-Type: application/json instead of {given:?}");
    Err(Problem::new(Kind::UnsupportedMediaType, detail))
}

async fn read_all(body: Body, limits: Limits) -> Result<Bytes, Problem> {
    emergent_budget::read(body, limits, Some(Pace::OF_CLIENTS)).await.map_err(|error| match error {
        ReadError::TooLong(_) | ReadError::TooManyValues(_) => {
            let detail = format!("the body is too large: {error}; files/upload takes contents of any size");
            Problem::new(Kind::TooLarge, detail)
        }
        ReadError::TooSlow(_) => Problem::new(Kind::TooSlow, "the body came too slowly; send it without pauses"),
        ReadError::Exhausted(exhausted) => Problem::new(Kind::Busy, exhausted.to_string()),
        ReadError::Broken(error) => Problem::new(Kind::Malformed, format!("the body could not be read: {error}")),
    })
}

fn refusal(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let inner = error.into_inner();
    if !inner.is_data() {
        return Problem::new(Kind::Malformed, format!("the body is not well-formed JSON: {inner}"));
    }
    let message = inner.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    let named = ["unknown field `", "missing field `"].iter().find_map(|beginning| message.strip_prefix(beginning));
    match named.and_then(|rest| rest.split('`').next()) {
        Some(field) => Problem::of_field(Kind::InvalidRequest, field, message),
        None => Problem::of_field(Kind::InvalidRequest, &path, words::explain(message)),
    }
}
