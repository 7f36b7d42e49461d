//! Extractors of requests. Every failure is a problem that names the part of the request at fault.

use std::io;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use emergent_budget::{Limits, Pace, ReadError};
use emergent_guest_client::form::{self, FormError};
use emergent_guest_proto::ExecutionId;
use emergent_request_reader::{FieldMisfit, JsonError, Misfit, json, query};
use emergent_types::{SnapshotId, WorkspaceId, error_chain};
use futures::{StreamExt as _, stream::BoxStream};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    facts::CallFacts,
    http::{
        check::{Check, Faults},
        problem::{ProblemKind, Refusal},
        route::RouteMetadata,
        size::ByteSize,
    },
};

/// A JSON body, of the right form and with values in range.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A query string, of the right form and with values in range.
pub(crate) struct Query<T>(pub(crate) T);

/// A body of any size that is stored or passed on as it is. A form is refused: its envelope would be stored with it.
pub(crate) struct RawBody(pub(crate) BoxStream<'static, io::Result<Bytes>>);

/// A file of any size: the body itself, or the one file of a form.
pub(crate) struct FileBody(pub(crate) BoxStream<'static, io::Result<Bytes>>);

/// Marks a request whose name of a workspace could not be looked up because the store failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotLookedUp;

/// The workspace that the path names.
pub(crate) struct WorkspacePath(pub(crate) WorkspaceId);

/// The snapshot that the path names.
pub(crate) struct SnapshotPath(pub(crate) SnapshotId);

/// The leftover that the path names.
pub(crate) struct LeftoverPath(pub(crate) Uuid);

/// The workspace and the execution that the path names.
pub(crate) struct ExecutionPath(pub(crate) WorkspaceId, pub(crate) ExecutionId);

impl<S: Send + Sync, T: DeserializeOwned + Check> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        require_json(request.headers())?;
        let (parts, body) = request.into_parts();
        let limits = RouteMetadata::of(&parts)?.body;
        let facts = parts.extensions.get::<CallFacts>().cloned().unwrap_or_default();
        let body = read_all(body, limits).await?;
        let value: T = json(&body).map_err(|error| json_refusal(error, T::OUTER_FIELDS))?;
        facts.arguments(|kept| value.arguments(kept));
        checked(value).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Check> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Refusal> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        match form_type(request.headers()) {
            None => Ok(Self(chunks_of(request.into_body()))),
            Some(_) => {
                let detail =
                    "this call takes the bytes as they are, and no form; send them with `curl --data-binary @FILE`";
                Err(Refusal::new(ProblemKind::UnsupportedMediaType, detail))
            }
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for FileBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let form_type = form_type(request.headers());
        let chunks = chunks_of(request.into_body());
        let Some(form_type) = form_type else { return Ok(Self(chunks)) };
        let form = form::read(&form_type, chunks).await.map_err(|error| {
            let kind = match error {
                FormError::Exhausted(exhausted) => return exhausted.into(),
                FormError::NotAForm => ProblemKind::UnsupportedMediaType,
                FormError::NoFile | FormError::TooMuch | FormError::Broken(_) => ProblemKind::MalformedRequest,
            };
            Refusal::new(kind, error_chain(&error))
        })?;
        Ok(Self(form.contents))
    }
}

/// Returns the content type of a body that has parts.
fn form_type(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    form::is_multipart(content_type).then(|| content_type.to_owned())
}

fn chunks_of(body: Body) -> BoxStream<'static, io::Result<Bytes>> {
    body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed()
}

impl<S: Send + Sync, T: DeserializeOwned + Check> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let value: T = query(parts.uri.query().unwrap_or_default()).map_err(field_refusal)?;
        if let Some(facts) = parts.extensions.get::<CallFacts>() {
            facts.arguments(|kept| value.arguments(kept));
        }
        checked(value).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WorkspacePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        workspace_id(parts, &text).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SnapshotPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| {
            let detail =
                "what stands in the path is not a snapshot id, which is a UUID; find the id in the list of snapshots";
            Refusal::new(ProblemKind::SnapshotNotFound, detail)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LeftoverPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| {
            let detail =
                "what stands in the path is not a leftover's id, which is a UUID; find the id in the list of leftovers";
            Refusal::new(ProblemKind::LeftoverNotFound, detail)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ExecutionPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let workspace = path_parameter(parts, state, "id").await?;
        let workspace = workspace_id(parts, &workspace)?;
        let execution = path_parameter(parts, state, "execution_id").await?;
        let execution = ExecutionId::new(&execution)
            .map_err(|error| Refusal::of_field(ProblemKind::InvalidRequest, "execution_id", error.to_string()))?;
        if let Some(facts) = parts.extensions.get::<CallFacts>() {
            facts.execution(&execution);
        }
        Ok(Self(workspace, execution))
    }
}

/// Returns a parameter of the path, its percent-encoding undone.
pub(crate) async fn path_parameter<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &'static str,
) -> Result<String, Refusal> {
    let parameters = RawPathParams::from_request_parts(parts, state).await.map_err(|_| {
        Refusal::new(ProblemKind::MalformedRequest, "the path is not UTF-8 once its percent-encoding is undone")
    })?;
    let found = parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Refusal::new(ProblemKind::Internal, format!("the route has no parameter {name}")))
}

/// Returns the id of the workspace in a path. The name, if there was one, has been replaced by the id already.
fn workspace_id(parts: &Parts, text: &str) -> Result<WorkspaceId, Refusal> {
    text.parse().map_err(|_| {
        if parts.extensions.get::<NotLookedUp>().is_some() {
            let detail = "the server's store failed, and knows the names of workspaces; try again, or use the id";
            return Refusal::new(ProblemKind::StoreUnavailable, detail).retry_after(1);
        }
        let detail = format!(
            "your project has no workspace of the name or id {text:?}; list them with GET /api/v1/agent/workspaces"
        );
        Refusal::new(ProblemKind::WorkspaceNotFound, detail)
    })
}

fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type =
        headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let essence =
        content_type.as_deref().and_then(|text| text.split(';').next()).map(|text| text.trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(()),
        Some(essence) if essence.starts_with("application/") && essence.ends_with("+json") => Ok(()),
        Some(_) | None => {
            let content_type = content_type.map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}"));
            let detail = format!("this call takes JSON; send Content-Type: application/json instead of {content_type}");
            Err(Refusal::new(ProblemKind::UnsupportedMediaType, detail))
        }
    }
}

/// Reads a body; the memory that it takes is held until the request ends.
pub(crate) async fn read_all(body: Body, limits: Limits) -> Result<Bytes, Refusal> {
    emergent_budget::read(body, limits, Some(Pace::OF_CLIENTS)).await.map_err(|error| match error {
        ReadError::TooLong(bytes) => Refusal::new(
            ProblemKind::TooLarge,
            format!(
                "the body of this call has at most {}; upload larger contents with PUT …/files/content, which takes any \
                 size",
                ByteSize(bytes as u64)
            ),
        ),
        ReadError::TooManyValues(most) => {
            Refusal::new(ProblemKind::TooLarge, format!("the body of this call has at most {most} values"))
        }
        ReadError::TooSlow(_) => {
            let detail = "the body came too slowly; send it without pauses, or in smaller calls";
            Refusal::new(ProblemKind::BodyTooSlow, detail)
        }
        ReadError::Exhausted(exhausted) => exhausted.into(),
        ReadError::Broken(error) => {
            Refusal::new(ProblemKind::MalformedRequest, format!("the body could not be read: {error}"))
        }
    })
}

/// Turns a fault of a body into a problem. `outer` are the fields that are known beside those that the fault names.
fn json_refusal(error: JsonError, outer: &[&'static str]) -> Refusal {
    match error {
        JsonError::Field(mut fault) => {
            if let Misfit::UnknownField { known, .. } = &mut fault.misfit {
                known.splice(..0, outer.iter().copied());
            }
            field_refusal(fault)
        }
        JsonError::NotAnObject | JsonError::Malformed(_) | JsonError::Trailing(_) => {
            Refusal::new(ProblemKind::MalformedRequest, error.to_string())
        }
    }
}

/// Turns a fault of a field into a problem: a wrong form is 400, an impossible value 422.
fn field_refusal(fault: FieldMisfit) -> Refusal {
    let kind = if fault.misfit.is_of_form() { ProblemKind::InvalidRequest } else { ProblemKind::InvalidValue };
    Refusal::of_field(kind, fault.field, fault.misfit.to_string())
}

fn checked<T: Check>(value: T) -> Result<T, Refusal> {
    let mut faults = Faults::default();
    value.check(&mut faults);
    faults.into_result().map(|()| value)
}
