//! The messages in a server's answer, whether it is one of JSON or a stream of events.

use bytes::{Bytes, BytesMut};
use http::{Response, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;

use super::UpstreamBody;
use crate::lines::{Line, Lines};

/// The longest message that is passed on; bridges take no longer ones from their children either.
const LONGEST: usize = 32 << 20;

/// Reads messages one after the other.
pub(super) enum Messages {
    Json(Option<UpstreamBody>),
    Events { body: UpstreamBody, lines: Lines, data: Vec<u8> },
}

// === impl Messages ===

impl Messages {
    /// Of an answer that is JSON, or a stream of events.
    pub(super) fn of(response: Response<UpstreamBody>) -> Self {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let events = kind.starts_with("text/event-stream");
        let body = response.into_body();
        if events {
            Self::Events { body, lines: Lines::new(LONGEST), data: Vec::new() }
        } else {
            Self::Json(Some(body))
        }
    }

    /// The next one; `None` at the end, or where the connection broke. Cancel-safe for events; JSON that was begun
    /// is lost.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Json(body) => whole(body.take()?).await,
            Self::Events { body, lines, data } => loop {
                while let Some((line, _)) = lines.next() {
                    // One that is too long to be passed on is left out: its request ends without an answer.
                    let Line::Whole(line) = line else { continue };
                    let line = line.strip_suffix(b"\r").unwrap_or(&line);
                    if line.is_empty() {
                        let event = std::mem::take(data);
                        if !event.is_empty() {
                            return Some(event.into());
                        }
                    } else if let Some(more) = line.strip_prefix(b"data:") {
                        let more = more.strip_prefix(b" ").unwrap_or(more);
                        if !data.is_empty() {
                            data.push(b'\n');
                        }
                        data.extend_from_slice(more);
                    }
                }
                let chunk = body.frame().await?.ok()?;
                if let Ok(chunk) = chunk.into_data() {
                    lines.push(&chunk);
                }
            },
        }
    }
}

/// A whole body, unless it is longer than any message.
pub(super) async fn whole(mut body: UpstreamBody) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame.ok()?.into_data() {
            whole.extend_from_slice(&chunk);
        }
        if whole.len() > LONGEST {
            return None;
        }
    }
    (!whole.is_empty()).then(|| whole.freeze())
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn read(kind: &str, chunks: &'static [&'static str]) -> Vec<String> {
        let frames = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let response = Response::builder().header(CONTENT_TYPE, kind).body(body).expect("a response");
        let mut messages = Messages::of(response);
        let mut found = Vec::new();
        while let Some(message) = messages.next().await {
            found.push(String::from_utf8(message.to_vec()).expect("UTF-8"));
        }
        found
    }

    #[tokio::test]
    async fn events_come_whole_from_any_chunks() {
        let chunks =
            &[": hello\n\nid: 1\nretry: 5\ndata: \n\nid: 2\nda", "ta: {\"a\":\r\ndata: 1}\r\n", "\r\ndata:{}\n\n"];
        assert_eq!(read("text/event-stream", chunks).await, ["{\"a\":\n1}", "{}"]);
    }

    #[tokio::test]
    async fn json_is_one_message_and_nothing_is_none() {
        assert_eq!(read("application/json", &["{\"a\"", ":1}"]).await, ["{\"a\":1}"]);
        assert_eq!(read("application/json", &[]).await, Vec::<String>::new());
    }
}
