//! Problems: what every answer that is not a success says (RFC 9457), and the one place where failures become HTTP.

use emergent_types::error_chain;
use std::any::Any;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use emergent_guest_client::GuestCallError;
use emergent_guest_proto::GuestError;
use serde::Serialize;

use crate::SandboxError;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// When to ask again for a place that is taken, in seconds.
const RETRY_AFTER: u64 = 5;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $slug:literal, $status:ident, $title:literal;)+) => {
        /// A kind of problem, with one stable name, one status and one title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)+ }
            }

            fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)+ }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }
        }
    };
}

kinds! {
    /// The request cannot be read.
    Malformed = "malformed-request", BAD_REQUEST, "The request cannot be read";
    /// A field is of the wrong form, unknown, or missing.
    InvalidRequest = "invalid-request", BAD_REQUEST, "A field is wrong";
    /// No key, or a wrong one.
    Unauthorized = "unauthorized", UNAUTHORIZED, "The API key is missing or wrong";
    /// A page of a web site asks.
    Foreign = "foreign-origin", FORBIDDEN, "The request comes from elsewhere";
    /// There is no such path.
    NoSuchRoute = "no-such-route", NOT_FOUND, "There is no such path";
    /// The path takes other methods.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method";
    /// There is no such sandbox.
    SandboxNotFound = "sandbox-not-found", NOT_FOUND, "There is no such sandbox";
    /// There is no such snapshot.
    SnapshotNotFound = "snapshot-not-found", NOT_FOUND, "There is no such snapshot";
    /// The snapshot is not what was written.
    SnapshotDamaged = "snapshot-damaged", UNPROCESSABLE_ENTITY, "The snapshot is damaged";
    /// There is no such template.
    TemplateNotFound = "template-not-found", UNPROCESSABLE_ENTITY, "There is no such template";
    /// The sandbox is not in a state that allows this.
    WrongState = "wrong-state", CONFLICT, "The sandbox is in another state";
    /// Something of this name is there, or in use.
    Taken = "taken", CONFLICT, "The name is taken, or the thing is in use";
    /// The body came too slowly.
    TooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body came too slowly";
    /// The body is longer than this call takes.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "Too large";
    /// The body is not what this call takes.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The media type is not taken here";
    /// A value is out of range.
    InvalidValue = "invalid-value", UNPROCESSABLE_ENTITY, "A value is out of range";
    /// The channel is asked for without an upgrade.
    UpgradeRequired = "upgrade-required", UPGRADE_REQUIRED, "The channel is an upgrade";
    /// A defect of this service, or of the host.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The service failed";
    /// The monitor did not do what it was told.
    MachineFailed = "machine-failed", BAD_GATEWAY, "The machine failed";
    /// The connection to the guest broke in the middle of the call.
    Interrupted = "call-interrupted", BAD_GATEWAY, "The call was interrupted";
    /// Other requests hold all the memory that requests may hold.
    Busy = "busy", SERVICE_UNAVAILABLE, "The service is busy";
    /// There is no room for another machine.
    NoRoom = "no-room", SERVICE_UNAVAILABLE, "There is no room for another sandbox";
    /// The service is going down, or not ready.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service does not do this now";
    /// The guest could not be reached.
    Unreachable = "sandbox-unreachable", SERVICE_UNAVAILABLE, "The sandbox could not be reached";
    /// The guest did not answer in time.
    TimedOut = "call-timed-out", GATEWAY_TIMEOUT, "The sandbox did not answer in time";
    /// The host's disk is full.
    DiskFull = "disk-full", INSUFFICIENT_STORAGE, "No space is left";
}

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    body: Box<Body>,
    retry_after: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    /// Always false, and the detail once more, for clients that look for no more than that.
    success: bool,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_id: Option<String>,
}

// === impl Problem ===

impl Problem {
    /// A problem of a kind; `detail` says what happened and what to do next.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let body = Body {
            kind: format!("urn:emergent:problem:{}", kind.slug()),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            success: false,
            error: detail.clone(),
            detail,
            field: None,
            path: None,
            execution_id: None,
        };
        let retry_after = matches!(kind, Kind::NoRoom | Kind::Busy).then_some(RETRY_AFTER);
        Self { status: kind.status(), body: Box::new(body), retry_after }
    }

    /// A problem that blames a field.
    pub(crate) fn of_field(kind: Kind, field: &str, message: impl std::fmt::Display) -> Self {
        let mut problem = Self::new(kind, format!("{field}: {message}"));
        problem.body.field = Some(field.to_owned());
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sandboxes\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Self {
        let kind = match &error {
            SandboxError::NotFound(_) => Kind::SandboxNotFound,
            SandboxError::SnapshotNotFound(_) => Kind::SnapshotNotFound,
            SandboxError::SnapshotDamaged { .. } => Kind::SnapshotDamaged,
            SandboxError::Invalid { field, message } => return Self::of_field(Kind::InvalidValue, field, message),
            SandboxError::Taken(_) => Kind::Taken,
            SandboxError::WrongState { .. } => Kind::WrongState,
            SandboxError::NoRoom(_) => Kind::NoRoom,
            SandboxError::TemplateMissing { .. } => Kind::TemplateNotFound,
            SandboxError::DiskFull { .. } => Kind::DiskFull,
            SandboxError::Io { .. } | SandboxError::Disk(_) => Kind::Internal,
            SandboxError::Boot(_)
            | SandboxError::Save(_)
            | SandboxError::Restore(_)
            | SandboxError::Vmm { .. }
            | SandboxError::Network(_)
            | SandboxError::Guest(_)
            | SandboxError::Ended(_) => Kind::MachineFailed,
            SandboxError::Channel(_) => Kind::Unreachable,
            SandboxError::Stopping => Kind::Unavailable,
        };
        Self::new(kind, error_chain(&error))
    }
}

impl From<GuestCallError> for Problem {
    fn from(error: GuestCallError) -> Self {
        let detail = error_chain(&error);
        let (kind, execution) = match error {
            GuestCallError::Refused(refusal) => return refusal.into(),
            GuestCallError::Unreachable(_) => (Kind::Unreachable, None),
            GuestCallError::Interrupted { execution_id, .. } => (Kind::Interrupted, execution_id),
            GuestCallError::Timeout { execution_id, .. } => (Kind::TimedOut, execution_id),
            GuestCallError::Exhausted(_) => (Kind::Busy, None),
            GuestCallError::Nonsense(_) => (Kind::Interrupted, None),
        };
        let mut problem = Self::new(kind, detail);
        problem.body.execution_id = execution.map(|id| id.to_string());
        problem
    }
}

impl From<GuestError> for Problem {
    fn from(error: GuestError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let word = serde_json::to_value(error.code).ok().and_then(|word| word.as_str().map(|it| it.replace('_', "-")));
        let body = Body {
            kind: format!("urn:emergent:problem:{}", word.as_deref().unwrap_or("guest-failed")),
            title: "The sandbox refused".to_owned(),
            status: status.as_u16(),
            success: false,
            error: error.message.clone(),
            detail: error.message,
            field: error.field,
            path: error.path.map(|path| path.to_string()),
            execution_id: None,
        };
        Self { status, body: Box::new(body), retry_after: None }
    }
}

/// A defect: the log has what happened.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of an unknown kind"), "a call panicked");
    Problem::new(Kind::Internal, "a defect of the service; its log says more").into_response()
}
