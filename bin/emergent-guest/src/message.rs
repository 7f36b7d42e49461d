//! Reading requests and writing answers.

use std::io;

use bytes::Bytes;
use emergent_guest_proto::{ErrorCode, GuestError};
use futures::{Stream, TryStreamExt as _};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::{Serialize, de::DeserializeOwned};

/// An answer. Its body may fail in the middle; the stream is then reset, which the caller sees.
pub type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The longest JSON body that is taken, in bytes.
const MAX_JSON: usize = 32 << 20;

/// Reads a JSON body.
///
/// # Errors
/// `invalid_request` that names the field, or `too_large`.
pub async fn json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, GuestError> {
    let collected = Limited::new(request.into_body(), MAX_JSON).collect().await;
    let body = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = "the request is larger than 32 MiB; upload large contents as a raw file";
            GuestError::new(ErrorCode::TooLarge, message)
        } else {
            GuestError::new(ErrorCode::InvalidRequest, format!("the request's body broke off: {error}"))
        }
    })?;
    let bytes = body.to_bytes();
    // Every field of some requests is optional, and an absent body means just that.
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(bytes)).map_err(|error| {
        let field = error.path().to_string();
        let refused =
            GuestError::new(ErrorCode::InvalidRequest, format!("the request is malformed: {}", error.inner()));
        if field == "." { refused } else { refused.with_field(field) }
    })
}

/// Reads the query string.
///
/// # Errors
/// `invalid_request`.
pub fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, GuestError> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|error| GuestError::new(ErrorCode::InvalidRequest, format!("the query is malformed: {error}")))
}

/// Answers with JSON.
pub fn ok<T: Serialize>(value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => ok_json(body.into()),
        Err(error) => failed(&GuestError::new(ErrorCode::Internal, format!("the answer is not JSON: {error}"))),
    }
}

/// Answers with what is JSON already.
pub fn ok_json(body: Bytes) -> Reply {
    with_json(StatusCode::OK, body)
}

/// Answers that there is nothing to say.
pub fn no_content() -> Reply {
    let mut reply = Response::new(empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// Answers with an error.
pub fn failed(error: &GuestError) -> Reply {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Strings and numbers always serialize.
    with_json(status, serde_json::to_vec(error).unwrap_or_default().into())
}

/// The error of a request that no route takes.
pub(crate) fn unsupported(request: &Request<Incoming>) -> GuestError {
    let message = format!("this guest does not know {} {}", request.method(), request.uri().path());
    GuestError::new(ErrorCode::Unsupported, message)
}

/// Answers with bytes as they come.
pub fn stream(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Reply {
    let mut reply = Response::new(StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    reply
}

fn with_json(status: StatusCode, body: Bytes) -> Reply {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    reply
}

fn empty() -> UnsyncBoxBody<Bytes, io::Error> {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}
