//! The messages in a server's answer, whether it is one of JSON or a stream of events.

use bytes::{Bytes, BytesMut};
use emergent_budget::{Account, Exhausted, Growing};
use http::{Response, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;

use super::UpstreamBody;
use crate::{
    config::LINE_LIMIT,
    lines::{Line, Lines},
};

/// The name of the field before an event's message.
const FIELD: &[u8] = b"data: ";

/// Reads messages one after the other.
pub(super) struct Messages {
    source: Source,
    /// Holds the next one.
    growing: Growing,
}

enum Source {
    Json(Option<UpstreamBody>),
    Events { body: UpstreamBody, lines: Lines, event: Event },
}

/// The part of an event that was read.
#[derive(Default)]
pub(super) struct Event {
    data: Vec<u8>,
    /// Whether the event has more than a message may have: the rest is read and dropped.
    too_long: bool,
}

/// One message of an answer.
#[derive(Debug)]
pub(super) enum Came {
    Message(Bytes),
    /// A message that is longer than any that is passed on; bridges take no longer ones from their children either.
    TooLong,
    /// One that cannot be held.
    Unheld(Exhausted),
}

// === impl Messages ===

impl Messages {
    /// The messages of an answer that is JSON, or a stream of events; long ones are held on accounts like this one.
    pub(super) fn of(response: Response<UpstreamBody>, account: Option<Account>) -> Self {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let events = kind.starts_with("text/event-stream");
        let body = response.into_body();
        let source = if events {
            Source::Events { body, lines: Lines::new(LINE_LIMIT + FIELD.len() + 1), event: Event::default() }
        } else {
            Source::Json(Some(body))
        };
        Self { source, growing: Growing::new(account) }
    }

    /// The next message; `None` at the end, or where the connection broke. Cancel-safe for events; JSON that was begun
    /// is lost.
    pub(super) async fn next(&mut self) -> Option<Came> {
        let Self { source, growing } = self;
        match source {
            Source::Json(body) => whole(body.take()?, growing).await,
            Source::Events { body, lines, event } => loop {
                while let Some((line, _)) = lines.next() {
                    let Line::Whole(line) = line else {
                        event.too_long = true;
                        continue;
                    };
                    let line = line.strip_suffix(b"\r").unwrap_or(&line);
                    if line.is_empty() {
                        match std::mem::take(event) {
                            Event { too_long: true, .. } => return Some(Came::TooLong),
                            Event { data, .. } if !data.is_empty() => {
                                return Some(Came::Message(growing.keep(data.into())));
                            }
                            Event { .. } => {}
                        }
                    } else if let Some(more) = line.strip_prefix(b"data:") {
                        event.add(more.strip_prefix(b" ").unwrap_or(more));
                    }
                }
                let chunk = body.frame().await?.ok()?;
                if let Ok(chunk) = chunk.into_data() {
                    lines.push(&chunk);
                }
                if let Err(exhausted) = growing.hold(event.data.len() + lines.unfinished()).await {
                    lines.give_up(exhausted);
                    *event = Event { data: Vec::new(), too_long: true };
                    return Some(Came::Unheld(exhausted));
                }
            },
        }
    }
}

// === impl Event ===

impl Event {
    fn add(&mut self, more: &[u8]) {
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.too_long |= self.data.len() + more.len() > LINE_LIMIT;
        if self.too_long {
            self.data = Vec::new();
        } else {
            self.data.extend_from_slice(more);
        }
    }
}

/// A whole body as a message.
async fn whole(mut body: UpstreamBody, growing: &mut Growing) -> Option<Came> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame.ok()?.into_data() {
            whole.extend_from_slice(&chunk);
        }
        if whole.len() > LINE_LIMIT {
            return Some(Came::TooLong);
        }
        if let Err(exhausted) = growing.hold(whole.len()).await {
            return Some(Came::Unheld(exhausted));
        }
    }
    (!whole.is_empty()).then(|| Came::Message(growing.keep(whole.freeze())))
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use emergent_budget::Budget;

    use super::*;

    async fn read(kind: &str, chunks: &'static [&'static str]) -> Vec<String> {
        let frames = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let response = Response::builder().header(CONTENT_TYPE, kind).body(body).expect("a response");
        let mut messages = Messages::of(response, None);
        let mut found = Vec::new();
        while let Some(came) = messages.next().await {
            match came {
                Came::Message(message) => found.push(String::from_utf8(message.to_vec()).expect("UTF-8")),
                Came::TooLong | Came::Unheld(_) => found.push("too long".to_owned()),
            }
        }
        found
    }

    #[tokio::test]
    async fn what_is_too_long_is_told_and_what_comes_after_it_is_read() {
        let line = |length: usize| format!("data: {}\n\n", "x".repeat(length));
        let part = format!("data: {}\n", "x".repeat(LINE_LIMIT / 2));
        let in_parts = format!("{part}{part}{part}\n");
        let events: &'static str =
            format!("{}{}{in_parts}data: {{}}\n\n", line(LINE_LIMIT), line(LINE_LIMIT + 1)).leak();
        let chunks: &'static [&'static str] = vec![events].leak();
        let found = read("text/event-stream", chunks).await;
        assert_eq!(found[0].len(), LINE_LIMIT);
        assert_eq!(found[1..], ["too long", "too long", "{}"]);
        assert_eq!(read("application/json", chunks).await, ["too long"]);
    }

    #[tokio::test]
    async fn what_cannot_be_held_is_told_and_what_comes_after_it_is_read() {
        let budget = Budget::undivided(1 << 20);
        let long = format!("data: {}", "x".repeat(300 << 10));
        let chunks = [long.clone(), long.clone(), long, "\n\ndata: {}\n\n".to_owned()];
        let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let response = Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).expect("a response");
        let others = budget.account();
        others.try_hold(200 << 10).expect("room");
        tokio::time::pause();
        let mut messages = Messages::of(response, Some(budget.account()));
        assert!(matches!(messages.next().await, Some(Came::Unheld(_))));
        assert_eq!(budget.held(), 200 << 10);
        assert!(matches!(messages.next().await, Some(Came::TooLong)));
        assert!(matches!(messages.next().await, Some(Came::Message(message)) if message == "{}"));
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
