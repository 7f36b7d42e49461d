//! The outermost layer of every request: assigns a request id, opens a span, records metrics, and makes every failure a
//! problem.

use std::{any::Any, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::http::problem::{PROBLEM_JSON, ProblemKind, Refusal};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for layers further in.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Marks an answer whose errors belong to another protocol and are passed on unchanged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verbatim;

/// The outermost layer.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.to_str().unwrap_or_default().to_owned()));
    let method = known_method(request.method());
    // The route's template, never the path itself: paths would make as many time series as there are workspaces.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span =
        tracing::info_span!("request", id = %id.to_str().unwrap_or_default(), method, path = request.uri().path());
    let mut response = next.run(request).instrument(span.clone()).await;
    if response.extensions().get::<Verbatim>().is_none() {
        response = as_problem(response);
    }
    let status = response.status();
    response.headers_mut().insert(REQUEST_ID, id);

    let elapsed = started.elapsed();
    let status_text = status.as_str().to_owned();
    metrics::counter!("emergent_http_requests_total", "method" => method, "route" => route.clone(), "status" => status_text)
        .increment(1);
    metrics::histogram!("emergent_http_request_duration_seconds", "method" => method, "route" => route)
        .record(elapsed.as_secs_f64());
    span.in_scope(|| {
        let elapsed_ms = elapsed.as_millis();
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), elapsed_ms, "answered");
        } else {
            tracing::debug!(status = status.as_u16(), elapsed_ms, "answered");
        }
    });
    response
}

/// Returns the method for labels: methods that callers make up would make time series without end.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Returns the caller's own id if it is a plain word, otherwise a new one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let id = request.headers().get(REQUEST_ID);
    let id = id.filter(|id| (1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain));
    id.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::now_v7().to_string()).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// Turns failures that no handler of this server has made, such as a library's bare 400, into problems.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type == Some(PROBLEM_JSON.as_bytes()) {
        return response;
    }
    let kind = match status {
        StatusCode::NOT_FOUND => ProblemKind::NoSuchRoute,
        StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemKind::UnsupportedMediaType,
        status if status.is_client_error() => ProblemKind::MalformedRequest,
        _ => ProblemKind::Internal,
    };
    Refusal::new(kind, kind.explanation().replace('\n', " ").trim().to_owned()).into_response()
}

/// Returns the answer to a request whose handler panicked. The reason stays in the log.
#[expect(clippy::needless_pass_by_value, reason = "the panic layer calls it so")]
pub(crate) fn panicked(reason: Box<dyn Any + Send + 'static>) -> Response {
    let text = reason.downcast_ref::<&str>().copied().or_else(|| reason.downcast_ref::<String>().map(String::as_str));
    tracing::error!(reason = text.unwrap_or("unknown"), "a handler panicked");
    let detail = "this is a defect of the server; the x-request-id of this answer finds the reason in its log";
    Refusal::new(ProblemKind::Internal, detail).into_response()
}
