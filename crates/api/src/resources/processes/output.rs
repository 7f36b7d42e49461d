//! The output of an execution, from any offset: one stream's raw bytes, or both as events.

use emergent_types::error_chain;
use std::io;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use emergent_core::GuestSession;
use emergent_guest_proto::{Execution, Stream, execution::OutputQuery, frame::Frame};
use futures::{Stream as FuturesStream, StreamExt as _};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{ExecutionPath, Query},
        problem::{OnGuest, Refusal},
        sse::{self, Position},
    },
    resources::params::ExecutionParams,
    state::ApiState,
};

/// Offset in the stream of the first byte of the body.
const OUTPUT_OFFSET: HeaderName = HeaderName::from_static("x-output-offset");
/// `running` or `ended`, when the answer began.
const EXECUTION_STATUS: HeaderName = HeaderName::from_static("x-execution-status");

/// The streams to return, and the offsets to begin at.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProcessOutputQuery {
    /// The stream, for raw bytes; `stdout` by default.
    #[param(inline)]
    stream: Option<Stream>,
    /// Offset of the first byte wanted, for raw bytes; 0 by default.
    offset: Option<u64>,
    /// Offset of the first byte of standard output, for events.
    stdout_offset: Option<u64>,
    /// Offset of the first byte of standard error, for events.
    stderr_offset: Option<u64>,
    /// Go on until the execution has ended, rather than until what is there now has been sent.
    #[serde(default)]
    follow: bool,
}

impl Check for ProcessOutputQuery {
    fn check(&self, _: &mut Faults) {}
}

/// The output of an execution.
///
/// One stream's raw bytes; `x-output-offset` says where they begin, which is later than asked for when the workspace's
/// output budget no longer keeps the beginning. With `Accept: text/event-stream`, both streams as the events of `bash`;
/// `Last-Event-ID` goes on after an event.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}/output",
    tag = "processes",
    params(ExecutionParams, ProcessOutputQuery),
    responses(
        (status = 200, description = "The output.", content(
            (Vec<u8> = "application/octet-stream"),
            (sse::OutputEvent = "text/event-stream"),
        ), headers(
            ("x-output-offset" = u64, description = "Offset of the first byte of the body."),
            ("x-execution-status" = String, description = "`running` or `ended`, when the answer began."),
        )),
        OnGuest,
    )
)]
pub(super) async fn process_output(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
    Query(query): Query<ProcessOutputQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    let execution = guest.call(|guest| guest.execution(&execution)).await?;
    if sse::is_wanted(&headers) {
        let position = Position::from_headers(&headers)?.unwrap_or_else(|| Position {
            execution: execution.execution_id.clone(),
            stdout: query.stdout_offset.unwrap_or(0),
            stderr: query.stderr_offset.unwrap_or(0),
        });
        return Ok(sse::response(guest, execution, position, query.follow, caller.facts().clone()));
    }
    Ok(raw(guest, &execution, query.stream.unwrap_or(Stream::Stdout), query.offset.unwrap_or(0), query.follow))
}

fn raw(guest: GuestSession, execution: &Execution, stream: Stream, offset: u64, follow: bool) -> Response {
    let offset = offset.max(execution.dropped_bytes);
    let query = match stream {
        Stream::Stdout => OutputQuery { stdout: Some(offset), stderr: None, follow },
        Stream::Stderr => OutputQuery { stdout: None, stderr: Some(offset), follow },
    };
    let status = if execution.state.has_ended() { "ended" } else { "running" };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (OUTPUT_OFFSET, offset.to_string()),
        (EXECUTION_STATUS, status.to_owned()),
    ];
    let frames = guest.follow_output(execution.execution_id.clone(), query);
    (headers, Body::from_stream(bytes_of(frames, stream, offset))).into_response()
}

/// The bytes of one stream. A gap ends the body with an error: raw bytes have no way to show it.
fn bytes_of<E: std::error::Error>(
    frames: impl FuturesStream<Item = Result<Frame, E>> + Send + 'static,
    wanted: Stream,
    from: u64,
) -> impl FuturesStream<Item = io::Result<Bytes>> + Send {
    let mut next = from;
    frames.filter_map(move |frame| {
        let bytes = match frame {
            Ok(Frame::Data { stream, offset, bytes }) if stream == wanted => {
                if offset == next {
                    next += bytes.len() as u64;
                    Some(Ok(bytes))
                } else {
                    Some(Err(io::Error::other(format!("bytes {next} to {offset} are no longer kept"))))
                }
            }
            Ok(Frame::Data { .. } | Frame::Status(_) | Frame::KeepAlive) => None,
            Err(error) => Some(Err(io::Error::other(error_chain(&error)))),
        };
        std::future::ready(bytes)
    })
}
