//! Lines from chunks, of bounded length.

use bytes::{Buf as _, Bytes, BytesMut};
use emergent_budget::{Exhausted, SMALL};

/// The number of bytes of a dropped line that are kept at its start and at its end, to find out which request it
/// answered.
const TRACE: usize = 512;

/// Collects chunks into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    buffer: BytesMut,
    /// The position up to which the buffer is known to have no line end.
    searched: usize,
    /// The line that is being dropped, when one is.
    dropping: Option<Dropped>,
    /// The number of dropped bytes of that line that were not told yet.
    discarded: usize,
}

/// One line, or what is left of one.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(Bytes),
    /// A line that was too long.
    Dropped(Dropped),
}

/// A line that was too long to be kept, or could not be held.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// The number of the line's bytes, without its end.
    pub(crate) length: usize,
    pub(crate) why: Why,
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// The reason for which a line was dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why {
    TooLong,
    /// The line is a batch of more values than may be.
    TooManyValues,
    /// The line could not be held.
    Unheld(Exhausted),
}

// === impl Lines ===

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), searched: 0, dropping: None, discarded: 0 }
    }

    /// The number of bytes of a line whose end has not come yet.
    pub(crate) fn unfinished(&self) -> usize {
        self.buffer.len()
    }

    /// The number of bytes of a line that is too long, which were dropped since the last call: nobody needs them any
    /// more, although the line has not ended. They are not among those that [`next`](Self::next) tells of.
    pub(crate) fn discarded(&mut self) -> usize {
        std::mem::take(&mut self.discarded)
    }

    /// Adds a chunk that was read.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line with the number of bytes it took, if there is one.
    pub(crate) fn next(&mut self) -> Option<(Line, usize)> {
        let end = memchr::memchr(b'\n', self.buffer.get(self.searched..)?).map(|at| self.searched + at + 1);
        if let Some(end) = end {
            self.searched = 0;
            let part = self.split(end).slice(..end - 1);
            let too_long = || (part.len() > self.limit).then(|| Dropped::new(Why::TooLong));
            let dropping = self.dropping.take().or_else(too_long);
            let line = match dropping {
                Some(mut dropped) => {
                    dropped.add(&part);
                    Line::Dropped(dropped)
                }
                None => Line::Whole(part),
            };
            return Some((line, end));
        }
        if self.dropping.is_some() || self.buffer.len() > self.limit {
            self.drop_unfinished();
        }
        self.searched = self.buffer.len();
        None
    }

    /// Drops the line whose end has not come, because it cannot be held.
    pub(crate) fn give_up(&mut self, why: Exhausted) {
        self.drop_unfinished().why = Why::Unheld(why);
        self.searched = 0;
    }

    /// Takes the first bytes out, in memory of their own: whoever keeps a line would else keep all that was read with
    /// it, and the memory that longer lines needed before it.
    fn split(&mut self, end: usize) -> Bytes {
        let (first, rest) = self.buffer.split_at(end);
        if end <= SMALL {
            let first = Bytes::copy_from_slice(first);
            self.buffer.advance(end);
            return first;
        }
        // A long line has most of the buffer; what was read behind it is short.
        let rest = BytesMut::from(rest);
        let mut first = std::mem::replace(&mut self.buffer, rest);
        first.truncate(end);
        first.freeze()
    }

    fn drop_unfinished(&mut self) -> &mut Dropped {
        let part = std::mem::take(&mut self.buffer);
        self.discarded += part.len();
        let dropped = self.dropping.get_or_insert_with(|| Dropped::new(Why::TooLong));
        dropped.add(&part);
        dropped
    }
}

// === impl Dropped ===

impl Dropped {
    fn new(why: Why) -> Self {
        Self { length: 0, why, head: Vec::new(), tail: Vec::new() }
    }

    /// A line that was read, and is dropped for this reason.
    pub(crate) fn whole(line: &[u8], why: Why) -> Self {
        let mut dropped = Self::new(why);
        dropped.add(line);
        dropped
    }

    fn add(&mut self, part: &[u8]) {
        self.length += part.len();
        let room = TRACE.saturating_sub(self.head.len());
        self.head.extend_from_slice(part.get(..room).unwrap_or(part));
        self.tail.extend_from_slice(part.get(part.len().saturating_sub(TRACE)..).unwrap_or_default());
        let over = self.tail.len().saturating_sub(TRACE);
        self.tail.drain(..over);
    }

    /// The id that the line seems to have had: it stands before or behind the long member, where every serializer puts
    /// it.
    pub(crate) fn id(&self) -> Option<String> {
        let head = self.before_what_is_long();
        let tail = String::from_utf8_lossy(&self.tail);
        let first = head.find("\"id\"").and_then(|at| id_in(&head, at));
        first.or_else(|| id_in(&tail, tail.rfind("\"id\"")?))
    }

    /// Whether the line seems to have been a request or a notification, and no answer.
    pub(crate) fn has_method(&self) -> bool {
        let head = String::from_utf8_lossy(&self.head);
        let answers = head.contains("\"result\"") || head.contains("\"error\"");
        self.before_what_is_long().contains("\"method\"")
            || (!answers && head.contains("\"params\"") && String::from_utf8_lossy(&self.tail).contains("\"method\""))
    }

    /// The beginning of the line, up to the member that made it long.
    fn before_what_is_long(&self) -> String {
        let mut head = String::from_utf8_lossy(&self.head).into_owned();
        let long = ["\"result\"", "\"error\"", "\"params\""].into_iter().filter_map(|name| head.find(name)).min();
        head.truncate(long.unwrap_or(head.len()));
        head
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
    fn a_line_that_is_kept_keeps_no_other_in_memory() {
        let mut lines = Lines::new(16 << 20);
        let (long, short) = ("x".repeat(4 << 20), "y".repeat(100));
        let mut kept = Vec::new();
        for _ in 0..3 {
            for chunk in format!("{long}\n{short}\n{short}\n").as_bytes().chunks(64 << 10) {
                lines.push(chunk);
                while let Some((Line::Whole(line), _)) = lines.next() {
                    kept.push(line);
                }
            }
            assert!(lines.buffer.capacity() < 1 << 20, "{}", lines.buffer.capacity());
        }
        assert_eq!(kept.len(), 9);
        for line in kept {
            // Whoever alone holds some memory gets it back as it was allocated.
            let length = line.len();
            let line = line.try_into_mut().expect("a line shares its memory");
            assert!(line.capacity() <= 4 * (length + 1), "{length}: {}", line.capacity());
        }
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
                    assert_eq!((dropped.length, dropped.has_method()), (text.len() - 4, false));
                    assert!(*taken <= 700, "what was dropped is kept until the end");
                }
                (Line::Whole(_), _) => panic!("a long line was kept"),
            }
        }
    }

    #[test]
    fn long_question_is_no_answer() {
        let long = "x".repeat(5000);
        for (text, id) in [
            (format!("{{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":7,\"params\":\"{long}\"}}\n"), Some("7")),
            (format!("{{\"params\":\"{long}\",\"id\":7,\"method\":\"m\"}}\n"), Some("7")),
            (format!("{{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":\"{long}\"}}\n"), None),
        ] {
            let found = all(1000, &[text.as_bytes()]);
            let Some((Line::Dropped(dropped), _)) = found.first() else { panic!("a long line was kept") };
            assert!(dropped.has_method());
            assert_eq!(dropped.id().as_deref(), id);
        }
    }

    #[test]
    fn limit_counts_the_line_without_its_end() {
        for (length, whole) in [(99, true), (100, true), (101, false)] {
            let text = format!("{}\nnext\n", "x".repeat(length));
            for size in [1, 7, 100, 1000] {
                let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let mut lines = Lines::new(100);
                let (mut found, mut told) = (Vec::new(), 0);
                for chunk in chunks {
                    lines.push(chunk);
                    while let Some((line, taken)) = lines.next() {
                        found.push(matches!(line, Line::Whole(_)));
                        told += taken;
                    }
                    told += lines.discarded();
                }
                assert_eq!((found, told), (vec![whole, true], text.len()), "{length} in pieces of {size}");
            }
        }
    }
}
