//! Server-sent events, read from an answer as they come.

use futures::{StreamExt as _, stream::BoxStream};
use reqwest::Response;

/// The longest line, in bytes. A line of an execution has a third of a megabyte at most; a message of a hosted MCP
/// server may have 16.
const LONGEST_LINE: usize = 32 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The event's kind.
    pub(crate) name: String,
    /// The event's id. The server continues after this event when it is sent back.
    pub(crate) id: String,
    /// The data, as JSON.
    pub(crate) data: String,
}

/// The reason why reading ended before the last event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    /// The connection broke.
    #[error("the connection was lost")]
    Lost(#[source] reqwest::Error),
    /// The answer is no stream of events.
    #[error("what the server sends is not a stream of events")]
    NotEvents,
}

/// Reads events.
pub(crate) struct EventReader {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    parser: Parser,
}

#[derive(Default)]
struct Parser {
    unread: Vec<u8>,
    /// The part of `unread` that has no line end: each byte is searched once.
    searched: usize,
    event: Event,
}

// === impl EventReader ===

impl EventReader {
    pub(crate) fn new(response: Response) -> Self {
        Self { bytes: response.bytes_stream().boxed(), parser: Parser::default() }
    }

    /// Returns the next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, EventError> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            match self.bytes.next().await {
                Some(Ok(bytes)) => self.parser.unread.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(EventError::Lost(error)),
                None => return Ok(None),
            }
        }
    }
}

// === impl Parser ===

impl Parser {
    fn next(&mut self) -> Result<Option<Event>, EventError> {
        let mut begin = 0;
        let found = loop {
            let from = self.searched.max(begin);
            let Some(length) = self.unread[from..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.unread.len();
                break None;
            };
            let end = from + length;
            let line = std::str::from_utf8(&self.unread[begin..end]).map_err(|_| EventError::NotEvents)?;
            let is_end = line.trim_end_matches('\r').is_empty();
            self.event.take(line.trim_end_matches('\r'));
            begin = end + 1;
            self.searched = begin;
            if is_end && !self.event.data.is_empty() {
                break Some(std::mem::take(&mut self.event));
            }
        };
        self.unread.drain(..begin);
        self.searched -= begin;
        if self.unread.len() > LONGEST_LINE { Err(EventError::NotEvents) } else { Ok(found) }
    }
}

// === impl Event ===

impl Event {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" => value.clone_into(&mut self.id),
            "data" => self.data.push_str(value),
            // An empty field is a comment: the server shows that it lives.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text =
            b": hello\n\nevent: stdout\nid: a:1:0\ndata: {\"text\":\"\xc3\xa9\"}\n\nevent: result\r\ndata: {}\r\n\r\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in text.chunks(size) {
                parser.unread.extend_from_slice(chunk);
                while let Some(event) = parser.next().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events.len(), 2, "chunks of {size}");
            assert_eq!((events[0].name.as_str(), events[0].id.as_str()), ("stdout", "a:1:0"));
            assert_eq!(events[0].data, "{\"text\":\"é\"}");
            assert_eq!(events[1].name, "result");
        }
    }
}
