//! Readers of requests: every failure is a problem that names the faulty part.

use std::io;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use emergent_budget::{Limits, Pace, ReadError};
use emergent_guest_client::form::{self, FormError};
use emergent_guest_proto::GuestPath;
use emergent_request_reader::{FieldMisfit, JsonError, json, query};
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
        json(&body).map(Self).map_err(refusal)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(parts.uri.query().unwrap_or_default()).map(Self).map_err(|fault| field_refusal(&fault))
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
            let kind = match error {
                FormError::Exhausted(_) => Kind::Busy,
                FormError::NotAForm => Kind::UnsupportedMediaType,
                FormError::NoFile | FormError::TooMuch | FormError::Broken(_) => Kind::Malformed,
            };
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

fn refusal(error: JsonError) -> Problem {
    match error {
        JsonError::Field(fault) => field_refusal(&fault),
        JsonError::NotAnObject | JsonError::Malformed(_) | JsonError::Trailing(_) => {
            Problem::new(Kind::Malformed, error.to_string())
        }
    }
}

fn field_refusal(fault: &FieldMisfit) -> Problem {
    Problem::of_field(Kind::InvalidRequest, &fault.field, fault.misfit.to_string())
}
