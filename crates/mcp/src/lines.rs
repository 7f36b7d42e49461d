//! Lines from chunks, of bounded length.

use bytes::{Bytes, BytesMut};

/// How much of a dropped line is kept at its start and at its end, to find out whose answer it was.
const TRACE: usize = 512;

/// Collects chunks into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    buffer: BytesMut,
    /// Up to here the buffer is known to have no line end.
    searched: usize,
    /// The line that is being dropped, when one is.
    dropping: Option<Dropped>,
}

/// One line, or what is left of one.
#[derive(Debug)]
pub(crate) enum Line {
    /// Without its end.
    Whole(Bytes),
    /// Too long.
    Dropped(Dropped),
}

/// A line that was too long to be kept.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// All its bytes, its end included.
    pub(crate) length: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

// === impl Lines ===

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), searched: 0, dropping: None }
    }

    /// Takes what was read.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line with the number of bytes it took, if there is one.
    pub(crate) fn next(&mut self) -> Option<(Line, usize)> {
        let end = memchr::memchr(b'\n', self.buffer.get(self.searched..)?).map(|at| self.searched + at + 1);
        if let Some(end) = end {
            self.searched = 0;
            let line = self.buffer.split_to(end);
            if let Some(mut dropped) = self.dropping.take() {
                dropped.add(&line);
                let length = dropped.length;
                return Some((Line::Dropped(dropped), length));
            }
            let whole = line.freeze();
            if end > self.limit {
                let mut dropped = Dropped::new();
                dropped.add(&whole);
                return Some((Line::Dropped(dropped), end));
            }
            return Some((Line::Whole(whole.slice(..end - 1)), end));
        }
        if self.dropping.is_some() || self.buffer.len() > self.limit {
            self.dropping.get_or_insert_with(Dropped::new).add(&self.buffer);
            self.buffer = BytesMut::new();
        }
        self.searched = self.buffer.len();
        None
    }
}

// === impl Dropped ===

impl Dropped {
    fn new() -> Self {
        Self { length: 0, head: Vec::new(), tail: Vec::new() }
    }

    fn add(&mut self, part: &[u8]) {
        self.length += part.len();
        let room = TRACE.saturating_sub(self.head.len());
        self.head.extend_from_slice(part.get(..room).unwrap_or(part));
        self.tail.extend_from_slice(part.get(part.len().saturating_sub(TRACE)..).unwrap_or_default());
        let over = self.tail.len().saturating_sub(TRACE);
        self.tail.drain(..over);
    }

    /// The id that the line seems to have had: before or behind all that is long, where every serializer puts it.
    pub(crate) fn id(&self) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        let before = head.find("\"result\"").or_else(|| head.find("\"error\""));
        if let Some(id) = before.and_then(|end| head.get(..end)).and_then(|head| id_in(head, head.find("\"id\"")?)) {
            return Some(id);
        }
        let tail = String::from_utf8_lossy(&self.tail);
        id_in(&tail, tail.rfind("\"id\"")?)
    }
}

fn id_in(text: &str, at: usize) -> Option<String> {
    let rest = text.get(at + 4..)?.trim_start().strip_prefix(':')?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&serde_json::value::RawValue>();
    let id = values.next()?.ok()?.get();
    (!id.starts_with(['{', '[', 'n', 't', 'f'])).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(limit: usize, chunks: &[&[u8]]) -> Vec<(Line, usize)> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found
    }

    #[test]
    fn lines_come_whole_from_any_chunks() {
        let found = all(100, &[b"a", b"b\nc\n", b"", b"\nlast"]);
        let texts: Vec<_> = found
            .iter()
            .map(|(line, taken)| match line {
                Line::Whole(line) => (line.as_ref(), *taken),
                Line::Dropped(_) => (b"dropped".as_ref(), *taken),
            })
            .collect();
        assert_eq!(texts, [(b"ab".as_ref(), 3), (b"c".as_ref(), 2), (b"".as_ref(), 1)]);
    }

    #[test]
    fn long_line_is_dropped_and_tells_its_id() {
        let long = "x".repeat(5000);
        for text in [
            format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"{long}\"}}\n{{}}\n"),
            format!("{{\"result\":\"{long}\",\"jsonrpc\":\"2.0\",\"id\":7}}\n{{}}\n"),
        ] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(700).collect();
            let found = all(1000, &chunks);
            assert_eq!(found.len(), 2);
            match &found[0] {
                (Line::Dropped(dropped), taken) => {
                    assert_eq!(dropped.id().as_deref(), Some("7"));
                    assert_eq!(*taken, text.len() - 3);
                }
                (Line::Whole(_), _) => panic!("a long line was kept"),
            }
        }
    }
}
