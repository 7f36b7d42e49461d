//! Decodes the bytes of a stream into pieces, as text where possible.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

/// Turns the chunks of one stream into pieces.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The offset of the first byte that is not part of a piece yet.
    next: u64,
    /// The beginning of a character whose end has not arrived; at most three bytes.
    held: Vec<u8>,
}

/// A piece of a stream that can be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A gap: bytes that are no longer kept.
    Gap { from: u64, to: u64 },
    /// A chunk of bytes.
    Chunk(Chunk),
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Chunk {
    offset: u64,
    #[serde(skip)]
    end: u64,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Payload {
    Text(String),
    Base64(String),
}

// === impl Decoder ===

impl Decoder {
    pub(super) fn at(offset: u64) -> Self {
        Self { next: offset, held: Vec::new() }
    }

    /// Takes the chunk that begins at `offset`. Cuts off the part of it that was taken before.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let expected = self.next + self.held.len() as u64;
        let mut bytes = bytes;
        if offset > expected {
            pieces.extend(self.finish());
            pieces.push(Piece::Gap { from: self.next, to: offset });
            self.next = offset;
        } else {
            let known = usize::try_from(expected - offset).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[known..];
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            // The end may be the beginning of a character; only that is held back.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => all.len(),
        };
        self.held = all.split_off(whole);
        pieces.extend(self.emit(all));
        pieces
    }

    /// Returns the held bytes of a character that will not be completed.
    pub(super) fn finish(&mut self) -> Option<Piece> {
        let held = std::mem::take(&mut self.held);
        self.emit(held)
    }

    fn emit(&mut self, bytes: Vec<u8>) -> Option<Piece> {
        if bytes.is_empty() {
            return None;
        }
        let offset = self.next;
        self.next += bytes.len() as u64;
        let payload = match String::from_utf8(bytes) {
            Ok(text) => Payload::Text(text),
            Err(error) => Payload::Base64(BASE64_STANDARD.encode(error.as_bytes())),
        };
        Some(Piece::Chunk(Chunk { offset, end: self.next, payload }))
    }
}

// === impl Piece ===

impl Piece {
    /// Returns the offset of the first byte after the piece.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Gap { to, .. } => *to,
            Self::Chunk(chunk) => chunk.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(offset: u64, text: &str) -> Piece {
        let end = offset + text.len() as u64;
        Piece::Chunk(Chunk { offset, end, payload: Payload::Text(text.to_owned()) })
    }

    fn base64(offset: u64, bytes: &[u8]) -> Piece {
        let payload = Payload::Base64(BASE64_STANDARD.encode(bytes));
        Piece::Chunk(Chunk { offset, end: offset + bytes.len() as u64, payload })
    }

    #[test]
    fn a_character_split_over_chunks_comes_whole() {
        let euro = "€".as_bytes();
        let mut decoder = Decoder::at(0);
        assert_eq!(decoder.push(0, b"1 "), [text(0, "1 ")]);
        assert_eq!(decoder.push(2, &euro[..1]), []);
        assert_eq!(decoder.push(3, &euro[1..2]), []);
        assert_eq!(decoder.push(4, &[euro[2], b'!']), [text(2, "€!")]);
        assert_eq!(decoder.finish(), None);
    }

    #[test]
    fn bytes_that_are_no_text_come_as_base64() {
        let mut decoder = Decoder::at(5);
        assert_eq!(decoder.push(5, b"a\xffb"), [base64(5, b"a\xffb")]);
        assert_eq!(decoder.push(8, b"\xe2"), []);
        assert_eq!(decoder.finish(), Some(base64(8, b"\xe2")));
    }

    #[test]
    fn a_gap_is_named_and_what_was_held_comes_before_it() {
        let mut decoder = Decoder::at(0);
        assert_eq!(decoder.push(0, b"\xe2"), []);
        assert_eq!(decoder.push(10, b"x"), [base64(0, b"\xe2"), Piece::Gap { from: 1, to: 10 }, text(10, "x")]);
    }

    #[test]
    fn bytes_that_come_twice_are_sent_once() {
        let mut decoder = Decoder::at(0);
        assert_eq!(decoder.push(0, b"abc"), [text(0, "abc")]);
        assert_eq!(decoder.push(1, b"bcd"), [text(3, "d")]);
        assert_eq!(decoder.push(0, b"ab"), []);
    }
}
