//! The last bytes of a stream, addressed by their offsets.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

/// The end of a stream.
#[derive(Debug)]
pub struct Ring {
    limit: usize,
    state: Mutex<(VecDeque<u8>, u64)>,
}

impl Ring {
    /// Makes a ring that keeps the last `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Adds received bytes.
    pub fn push(&self, bytes: &[u8]) {
        let (kept, end) = &mut *self.state.lock();
        *end += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.limit)..];
        let surplus = (kept.len() + bytes.len()).saturating_sub(self.limit);
        kept.drain(..surplus);
        kept.extend(bytes);
    }

    /// Returns the offset of the next byte.
    pub fn end(&self) -> u64 {
        self.state.lock().1
    }

    /// Returns the kept bytes from an offset on, and the offset of their first.
    pub fn from(&self, offset: u64) -> (u64, Bytes) {
        let (kept, end) = &*self.state.lock();
        let first = end - kept.len() as u64;
        let begin = offset.clamp(first, *end);
        let skip = usize::try_from(begin - first).unwrap_or(usize::MAX);
        (begin, kept.iter().skip(skip).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_offsets_stay_true() {
        let ring = Ring::new(4);
        ring.push(b"abc");
        assert_eq!(ring.from(1), (1, "bc".into()));
        ring.push(b"defgh");
        assert_eq!(ring.from(0), (4, "efgh".into()));
        assert_eq!(ring.from(99), (8, Bytes::new()));
        ring.push(b"i");
        assert_eq!((ring.from(0), ring.end()), ((5, "fghi".into()), 9));
    }
}
