//! A child's output until it is acknowledged: bounded, so that a child whose output nobody reads is held up.

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The most bytes that a reader is given at once.
const PIECE: usize = 64 * 1024;
/// The bytes of memory that are kept for later output when all output is acknowledged.
const KEPT: usize = 256 * 1024;

/// The output that was received and is not acknowledged.
#[derive(Debug)]
pub struct Unread {
    limit: usize,
    state: Mutex<State>,
    /// Notified when output, or its end, was received.
    came: Notify,
    /// Notified when there is room again.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The offset of the first byte that is kept.
    start: u64,
    bytes: BytesMut,
    ended: bool,
}

impl Unread {
    /// Makes a buffer that keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), came: Notify::new(), room: Notify::new() }
    }

    /// Waits until there is room; returns how many bytes fit.
    pub async fn room(&self) -> usize {
        loop {
            // Asked for before the look, so that room that is made in between is not missed.
            let made = self.room.notified();
            let free = self.limit.saturating_sub(self.state().bytes.len());
            if free > 0 {
                return free;
            }
            made.await;
        }
    }

    /// Adds received bytes; the caller has asked for room.
    pub fn push(&self, bytes: &[u8]) {
        self.state().bytes.extend_from_slice(bytes);
        self.came.notify_waiters();
    }

    /// Notes the end of the output.
    pub fn end(&self) {
        self.state().ended = true;
        self.came.notify_waiters();
    }

    /// Returns the offsets of the first byte that is kept and of the next byte that will be received.
    pub fn offsets(&self) -> (u64, u64) {
        let state = self.state();
        (state.start, state.end())
    }

    /// Waits for bytes from an offset on and returns them; `None` at the end. The offset must be one between
    /// [`offsets`](Self::offsets); bytes that are acknowledged meanwhile are skipped.
    pub async fn next(&self, offset: u64) -> Option<Bytes> {
        loop {
            let came = self.came.notified();
            {
                let state = self.state();
                let skipped = usize::try_from(offset.saturating_sub(state.start)).unwrap_or(usize::MAX);
                if let Some(bytes) = state.bytes.get(skipped..).filter(|bytes| !bytes.is_empty()) {
                    return Some(Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE)]));
                }
                if state.ended {
                    return None;
                }
            }
            came.await;
        }
    }

    /// Forgets all bytes before an offset. An offset that is acknowledged already, or beyond the end, changes nothing.
    pub fn acknowledge(&self, offset: u64) {
        let mut state = self.state();
        if offset <= state.start || offset > state.end() {
            return;
        }
        let count = usize::try_from(offset - state.start).unwrap_or(usize::MAX);
        state.bytes.advance(count);
        state.start = offset;
        if state.bytes.is_empty() && state.bytes.capacity() > KEPT {
            state.bytes = BytesMut::new();
        }
        drop(state);
        self.room.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

// === impl State ===

impl State {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_not_acknowledged_can_be_read_again() {
        let unread = Unread::new(8);
        unread.push(b"abcdef");
        assert_eq!(unread.next(0).now_or_never().unwrap().unwrap(), "abcdef");
        unread.acknowledge(2);
        assert_eq!(unread.next(2).now_or_never().unwrap().unwrap(), "cdef");
        assert_eq!(unread.offsets(), (2, 6));
        unread.acknowledge(7);
        unread.acknowledge(1);
        assert_eq!(unread.offsets(), (2, 6));
    }

    #[test]
    fn a_full_buffer_waits_for_its_reader_and_an_ended_one_ends() {
        let unread = Unread::new(4);
        unread.push(b"abcd");
        assert_eq!(unread.room().now_or_never(), None);
        assert_eq!(unread.next(4).now_or_never(), None);
        unread.acknowledge(3);
        assert_eq!(unread.room().now_or_never(), Some(3));
        unread.end();
        assert_eq!(unread.next(3).now_or_never().unwrap().unwrap(), "d");
        assert_eq!(unread.next(4).now_or_never(), Some(None));
    }
}
