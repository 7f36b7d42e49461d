//! Bodies of requests, and the bounded reading of answers.

use std::io;

use bytes::Bytes;
use emergent_budget::{Exhausted, Limits, ReadError};
use emergent_guest_proto::Route;
use futures::{Stream, StreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::de::DeserializeOwned;

/// The body of a request to a guest.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// The reason for which an answer's body is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke in the middle.
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
    /// The body is longer, or has more values, than this call takes.
    #[error("an answer is larger than this call takes: {0}")]
    TooLarge(String),
    /// The server cannot hold it now.
    #[error(transparent)]
    Exhausted(Exhausted),
    /// The body is not the JSON that this call answers.
    #[error("an answer is not what this call answers: {0}")]
    NotJson(serde_json::Error),
}

/// The beginning of a request to a route. The URI has an authority only because HTTP/2 wants one.
pub(crate) fn request(route: Route, path_and_query: &str) -> http::request::Builder {
    Request::builder().method(route.method()).uri(format!("http://guest{path_and_query}"))
}

pub(crate) fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn streamed(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> RequestBody {
    StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// All of a body, within limits.
pub(crate) async fn collect(body: Incoming, limits: Limits) -> Result<Bytes, BodyError> {
    emergent_budget::read(body, limits, None).await.map_err(|error| match error {
        ReadError::Broken(lost) => BodyError::Lost(lost),
        ReadError::Exhausted(exhausted) => BodyError::Exhausted(exhausted),
        ReadError::TooLong(_) | ReadError::TooManyValues(_) | ReadError::TooSlow(_) => {
            BodyError::TooLarge(error.to_string())
        }
    })
}

/// All of a body, as JSON.
pub(crate) async fn json<T: DeserializeOwned>(body: Incoming, limits: Limits) -> Result<T, BodyError> {
    serde_json::from_slice(&collect(body, limits).await?).map_err(BodyError::NotJson)
}
