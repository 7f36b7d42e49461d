//! The output of an execution as server-sent events.
//!
//! Output is bytes and an event's data is text, so a chunk that is UTF-8 is sent as `text` and any other as `base64`; a
//! character that two chunks share is held back until it is whole. Each event's id says which execution it is of and
//! how far its two streams have been sent: a client that repeats the last one it saw misses nothing.

mod decode;
mod position;

use std::{convert::Infallible, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use emergent_core::GuestSession;
use emergent_guest_proto::{Execution, Stream, execution::OutputQuery, frame::Frame};
use futures::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use position::Position;

use crate::{facts::CallFacts, http::problem::Refusal};

use self::decode::{Decoder, Piece};

/// The interval at which a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event of a stream, for the OpenAPI document.
#[derive(ToSchema)]
#[schema(as = OutputEvent)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct OutputEvent {
    /// `execution`, `stdout`, `stderr`, `dropped`, `result`, `status` or `error`.
    event: String,
    /// `execution:stdout:stderr`: how far the execution's streams have been sent. Send it as `Last-Event-ID` to go on.
    id: String,
    /// JSON: an `Execution`, a chunk of output, a `BashResult` or a `Problem`.
    data: String,
}

/// Bytes that the workspace's output budget no longer keeps.
#[derive(Serialize)]
struct Dropped {
    stream: Stream,
    from: u64,
    to: u64,
}

/// Whether the caller asks for events.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|text| text.split(',')).filter_map(|part| part.split(';').next());
    types.any(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// The output of an execution from a position on: `execution` first, then the output, then `result` when it has ended
/// or `status` when it goes on and `follow` was not asked for. A failure is the event `error`, with a problem, and
/// the audit is told of it, as the answer's status cannot be.
pub(crate) fn response(
    guest: GuestSession,
    execution: Execution,
    from: Position,
    follow: bool,
    facts: CallFacts,
) -> Response {
    let events = async_stream::stream! {
        let mut position = from;
        yield event("execution", &execution, &position);
        let query = OutputQuery { stdout: Some(position.stdout), stderr: Some(position.stderr), follow };
        let mut frames = std::pin::pin!(guest.follow_output(position.execution.clone(), query));
        let mut decoders = [Decoder::at(position.stdout), Decoder::at(position.stderr)];
        let mut last = None;
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(Frame::Data { stream, offset, bytes }) => {
                    let decoder = &mut decoders[index(stream)];
                    for piece in decoder.push(offset, &bytes) {
                        yield piece_event(stream, &piece, &mut position);
                    }
                }
                Ok(Frame::Status(execution)) => last = Some(execution),
                Ok(Frame::KeepAlive) => {}
                Err(error) => {
                    facts.failed();
                    yield event("error", Refusal::from(error).problem(), &position);
                    return;
                }
            }
        }
        for (decoder, stream) in decoders.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            if let Some(piece) = decoder.finish() {
                yield piece_event(stream, &piece, &mut position);
            }
        }
        match last {
            Some(execution) if !execution.state.has_ended() => yield event("status", &execution, &position),
            _ => yield match guest.wait(&position.execution).await {
                Ok(result) => {
                    facts.ran(&result);
                    event("result", &result, &position)
                }
                Err(error) => {
                    facts.failed();
                    event("error", Refusal::from(error).problem(), &position)
                }
            },
        }
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response();
    // Proxies that collect answers before they pass them on would hold the stream up.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn piece_event(stream: Stream, piece: &Piece, position: &mut Position) -> Event {
    let reached = match stream {
        Stream::Stdout => &mut position.stdout,
        Stream::Stderr => &mut position.stderr,
    };
    *reached = piece.end();
    match piece {
        Piece::Gap { from, to } => event("dropped", &Dropped { stream, from: *from, to: *to }, position),
        Piece::Chunk(chunk) => {
            let name = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            event(name, chunk, position)
        }
    }
}

fn event(name: &str, data: &impl Serialize, position: &Position) -> Event {
    // JSON has no line breaks of its own, and our types always serialize; the alternative is an empty object.
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    Event::default().event(name).id(position.to_string()).data(data)
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
