//! The parts that all answers over HTTP have in common.

use std::{convert::Infallible, time::Duration};

use bytes::{Buf, Bytes};
use emergent_budget::{Limits, Pace, ReadError};
use futures::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::timeout;

use crate::{
    envelope::LONGEST_NAME,
    event_buffer::{Event, Reader, Receipt},
    rpc,
};

/// The body of every answer.
pub type BridgeBody = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(crate) type Answer = Response<BridgeBody>;

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The data with which a stream of events can be resumed.
#[derive(Clone, Debug)]
pub(crate) struct Resumable {
    /// The prefix of event ids.
    pub(crate) boot: String,
    /// The time after which a client is to connect again.
    pub(crate) retry: Duration,
}

/// The place from which a client wants to read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ResumePoint {
    /// A stream of this bridge, from this message on.
    At { stream: u64, from: u64 },
    /// A stream of a bridge before this one.
    Before,
}

/// Reads a whole body within limits.
pub(crate) async fn read<B>(body: B, limits: Limits) -> Result<Bytes, Box<Answer>>
where
    B: http_body::Body + Send,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Box::pin(emergent_budget::read(body, limits, Some(Pace::OF_CLIENTS))).await;
    read.map_err(|refused| {
        Box::new(match refused {
            ReadError::TooLong(_) | ReadError::TooManyValues(_) => {
                let text = format!("the request body is too large: {refused}");
                error(StatusCode::PAYLOAD_TOO_LARGE, None, rpc::REFUSED, &text)
            }
            ReadError::TooSlow(_) => {
                error(StatusCode::REQUEST_TIMEOUT, None, rpc::REFUSED, "the request body came too slowly")
            }
            ReadError::Exhausted(exhausted) => busy(StatusCode::SERVICE_UNAVAILABLE, None, &exhausted.to_string()),
            ReadError::Broken(_) => error(StatusCode::BAD_REQUEST, None, rpc::REFUSED, "the request body broke off"),
        })
    })
}

/// A JSON-RPC message as the whole answer.
pub(crate) fn json(status: StatusCode, message: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(message).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A message of the server as the whole answer; its receipt goes with the body.
pub(crate) fn json_event(status: StatusCode, event: Event) -> Answer {
    let Event { line, receipt, .. } = event;
    json(status, Receipt::keep(receipt.as_ref(), line)).map(|body| {
        body.map_frame(move |frame| {
            let _ = &receipt;
            frame
        })
        .boxed_unsync()
    })
}

/// A JSON-RPC error as the whole answer.
pub(crate) fn error(status: StatusCode, id: Option<&str>, code: i64, text: &str) -> Answer {
    json(status, rpc::error(id, code, text))
}

/// A JSON-RPC error as the whole answer, with the advice to try again later.
pub(crate) fn busy(status: StatusCode, id: Option<&str>, text: &str) -> Answer {
    let mut answer = error(status, id, rpc::REFUSED, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

/// The refusal of a message that [has a long name](crate::envelope::Message::has_long_name).
pub(crate) fn long_name() -> Answer {
    let text = format!("the id, the method and the progress token of a message have at most {LONGEST_NAME} bytes each");
    error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, &text)
}

/// The error for an HTTP method that the resource does not have.
pub(crate) fn not_allowed(allowed: &'static str) -> Answer {
    let text = format!("method not allowed here; use {allowed}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, None, rpc::REFUSED, &text);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// A stream of events: what the reader reads, until its end.
pub(crate) fn events(reader: Reader, resumable: Option<Resumable>, keep_alive: Duration) -> Answer {
    let first = resumable.as_ref().map(|resumable| {
        // Tells the client where to go on even if the connection is lost before the first message.
        let (boot, retry) = (&resumable.boot, resumable.retry.as_millis());
        Bytes::from(format!("id: {boot}-{}-{}\nretry: {retry}\ndata: \n\n", reader.stream(), reader.at()))
    });
    let start = (reader, resumable, first, None);
    let frames = stream::unfold(start, move |(mut reader, resumable, mut first, before)| async move {
        // Whoever asks for the next frame has written the one before.
        drop(before);
        let mut receipt = None;
        let text = match first.take() {
            Some(first) => first,
            None => match timeout(keep_alive, reader.next()).await {
                Ok(None) => return None,
                Ok(Some(event)) => {
                    receipt = event.receipt;
                    let text = encode(resumable.as_ref(), reader.stream(), event.next, &event.line);
                    Receipt::keep(receipt.as_ref(), text)
                }
                Err(_) => Bytes::from_static(b": keep-alive\n\n"),
            },
        };
        Some((Ok::<_, Infallible>(Frame::data(text)), (reader, resumable, first, receipt)))
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    answer
}

fn encode(resumable: Option<&Resumable>, stream: u64, next: u64, line: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(line.len() + 64);
    if let Some(resumable) = resumable {
        text.extend_from_slice(format!("id: {}-{stream}-{next}\n", resumable.boot).as_bytes());
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(line);
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// The place at which the client lost its stream, if it names one.
pub(crate) fn last_event(headers: &HeaderMap, boot: &str) -> Option<ResumePoint> {
    let text = headers.get(LAST_EVENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let mut next = || parts.next();
    let (Some(of), Some(stream), Some(from)) = (next(), next(), next()) else { return Some(ResumePoint::Before) };
    match (of == boot, stream.parse(), from.parse()) {
        (true, Ok(stream), Ok(from)) => Some(ResumePoint::At { stream, from }),
        _ => Some(ResumePoint::Before),
    }
}

/// Whether the client takes this media type. A client without an `Accept` header takes all.
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let mut said = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).peekable();
    if said.peek().is_none() {
        return true;
    }
    let main = wanted.split('/').next().unwrap_or_default();
    said.flat_map(|accept| accept.split(',')).any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range.eq_ignore_ascii_case(wanted) || range == "*/*" || range.strip_suffix("/*") == Some(main)
    })
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}
