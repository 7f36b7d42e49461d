//! The messages on their way to one stream of a client: written by a child's reader, read by a response's body.
//!
//! An event buffer keeps the messages that were not sent yet and, for clients that may come back, the last of those
//! that were. It has at most one [`Reader`]; a new one takes over from the old. A reader that does not keep up holds
//! the writer up for a while, then it is cut off; without a reader the oldest messages make room.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use emergent_budget::Account;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// The bytes of memory that a message takes besides its text: its place, its receipt and what the allocator adds.
const BESIDE: usize = 128;

/// One stream's messages.
pub(crate) struct EventBuffer {
    /// The stream's number among those of its session.
    pub(crate) number: u64,
    limits: Limits,
    state: Mutex<State>,
    /// Notified with `notify_waiters` after each change; a waiter makes the future before it looks at the state.
    changed: Notify,
}

/// The limits of an event buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes of sent messages that are kept, each counted with [`BESIDE`] more.
    pub(crate) replay: usize,
    /// The most bytes of unsent messages, counted in the same way; the newest message always fits.
    pub(crate) unsent: usize,
    /// The time for which a reader may hold the writer up.
    pub(crate) stall: Duration,
}

/// One message and its place.
#[derive(Debug)]
pub(crate) struct Event {
    /// The place from which to read on after the message.
    pub(crate) next: u64,
    pub(crate) line: Bytes,
    /// The receipt, to be dropped when the client has the message.
    pub(crate) receipt: Option<Arc<Receipt>>,
}

/// A receipt that a message holds until its client has it, or nobody will; a waiter is notified when the last holder
/// drops it.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) delivered: Arc<Notify>,
    /// The account that a long message is held on.
    pub(crate) account: Option<Account>,
}

/// The right to read an event buffer. Dropping it says that the client has gone.
pub(crate) struct Reader {
    event_buffer: Arc<EventBuffer>,
    turn: u64,
    at: u64,
    left: Option<Box<dyn FnOnce() + Send + Sync>>,
}

#[derive(Debug)]
struct State {
    events: VecDeque<(Bytes, Option<Arc<Receipt>>)>,
    /// The number of the first one in `events`.
    first: u64,
    /// The number of the first one that was not sent.
    unsent: u64,
    unsent_bytes: usize,
    sent_bytes: usize,
    /// Answers that are still to come; the stream ends with the last one.
    awaited: Option<usize>,
    closed: bool,
    /// Counts readers; the last one reads, if it is still there.
    turn: u64,
    reading: bool,
}

// === impl EventBuffer ===

impl EventBuffer {
    /// An event buffer for the answers to this many requests, with its first reader.
    pub(crate) fn answering(number: u64, answers: usize, limits: Limits) -> (Arc<Self>, Reader) {
        let event_buffer = Arc::new(Self::new(number, Some(answers), limits));
        let reader = event_buffer.read(0);
        (event_buffer, reader)
    }

    /// An event buffer for messages that answer nothing; open until it is closed.
    pub(crate) fn standing(number: u64, limits: Limits) -> Arc<Self> {
        Arc::new(Self::new(number, None, limits))
    }

    fn new(number: u64, awaited: Option<usize>, limits: Limits) -> Self {
        let state = State {
            events: VecDeque::new(),
            first: 0,
            unsent: 0,
            unsent_bytes: 0,
            sent_bytes: 0,
            awaited,
            closed: false,
            turn: 0,
            reading: false,
        };
        Self { number, limits, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Adds a message; waits before that while the reader has too much to read.
    pub(crate) async fn push(&self, line: Bytes, answer: bool, receipt: Option<Arc<Receipt>>) {
        let until = Instant::now() + self.limits.stall;
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                let fits = state.unsent_bytes == 0 || state.unsent_bytes + cost(&line) <= self.limits.unsent;
                if fits || !state.reading {
                    break;
                }
                if Instant::now() >= until {
                    tracing::debug!(event_buffer = self.number, "a client does not read; its stream is cut off");
                    state.reading = false;
                    break;
                }
            }
            let _ = timeout_at(until, changed).await;
        }
        self.add(line, answer, receipt);
    }

    /// Adds a message without waiting.
    pub(crate) fn push_now(&self, line: Bytes, answer: bool) {
        self.add(line, answer, None);
    }

    /// Notes that one of the answers will not come.
    pub(crate) fn give_up_one(&self) {
        self.lock().expect_one_less();
        self.changed.notify_waiters();
    }

    fn add(&self, line: Bytes, answer: bool, receipt: Option<Arc<Receipt>>) {
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            while state.unsent_bytes > 0 && state.unsent_bytes + cost(&line) > self.limits.unsent && !state.reading {
                state.forget_oldest();
            }
            state.unsent_bytes += cost(&line);
            state.events.push_back((line, receipt));
            if answer {
                state.expect_one_less();
            }
        }
        self.changed.notify_waiters();
    }

    /// Ends the stream after the messages that it holds.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Whether nothing will be added.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether a client reads it now.
    pub(crate) fn is_read(&self) -> bool {
        self.lock().reading
    }

    /// The number of bytes that the event buffer holds.
    pub(crate) fn held(&self) -> usize {
        let state = self.lock();
        state.sent_bytes + state.unsent_bytes
    }

    /// Takes over reading from this place on, or from the oldest that is kept behind it.
    pub(crate) fn read(self: &Arc<Self>, from: u64) -> Reader {
        let turn = {
            let mut state = self.lock();
            state.turn += 1;
            state.reading = true;
            state.turn
        };
        self.changed.notify_waiters();
        Reader { event_buffer: Arc::clone(self), turn, at: from, left: None }
    }

    /// Takes over reading behind the messages that were sent.
    pub(crate) fn read_on(self: &Arc<Self>) -> Reader {
        let from = self.lock().unsent;
        self.read(from)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

// === impl State ===

impl State {
    /// Counts one answer less; the stream ends with the last one.
    fn expect_one_less(&mut self) {
        if let Some(awaited) = &mut self.awaited {
            *awaited = awaited.saturating_sub(1);
            self.closed |= *awaited == 0;
        }
    }

    fn forget_oldest(&mut self) {
        let Some((line, _)) = self.events.pop_front() else { return };
        if self.first < self.unsent {
            self.sent_bytes -= cost(&line);
        } else {
            self.unsent_bytes -= cost(&line);
            self.unsent += 1;
        }
        self.first += 1;
    }
}

// === impl Reader ===

impl Reader {
    /// Sets the action for a client that goes away before the stream has ended.
    pub(crate) fn on_leaving(&mut self, left: impl FnOnce() + Send + Sync + 'static) {
        self.left = Some(Box::new(left));
    }

    /// The place of the next message.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The stream's number.
    pub(crate) fn stream(&self) -> u64 {
        self.event_buffer.number
    }

    /// Waits until something can be read, and tells whether that is all there will be: one message and the end.
    /// Cancel-safe.
    pub(crate) async fn only_one(&mut self) -> bool {
        loop {
            let changed = self.event_buffer.changed.notified();
            {
                let state = self.event_buffer.lock();
                let ready = (state.first + state.events.len() as u64).saturating_sub(self.at.max(state.first));
                if ready > 0 || state.closed || state.turn != self.turn {
                    return ready == 1 && state.closed;
                }
            }
            changed.await;
        }
    }

    /// The next message; `None` at the end, or when another reader has taken over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event_buffer = Arc::clone(&self.event_buffer);
        loop {
            let changed = event_buffer.changed.notified();
            if let Some(found) = self.take() {
                event_buffer.changed.notify_waiters();
                return found;
            }
            changed.await;
        }
    }

    /// Takes the next message, if it is there; `Some(None)` is the end.
    fn take(&mut self) -> Option<Option<Event>> {
        let replay = self.event_buffer.limits.replay;
        let mut state = self.event_buffer.lock();
        if state.turn != self.turn || !state.reading {
            return Some(None);
        }
        self.at = self.at.max(state.first);
        let index = usize::try_from(self.at - state.first).ok()?;
        let Some((line, receipt)) = state.events.get_mut(index).map(|(line, receipt)| (line.clone(), receipt.take()))
        else {
            return state.closed.then_some(None);
        };
        self.at += 1;
        if self.at > state.unsent {
            state.unsent = self.at;
            state.unsent_bytes -= cost(&line);
            state.sent_bytes += cost(&line);
        }
        while state.sent_bytes > replay && state.first < state.unsent {
            state.forget_oldest();
        }
        Some(Some(Event { next: self.at, line, receipt }))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let mut state = self.event_buffer.lock();
            if state.turn == self.turn {
                state.reading = false;
            }
            if state.closed && state.unsent == state.first + state.events.len() as u64 {
                self.left = None;
            }
        }
        self.event_buffer.changed.notify_waiters();
        if let Some(left) = self.left.take() {
            left();
        }
    }
}

// === impl Receipt ===

impl Receipt {
    /// The bytes that the client is sent of the message, held until the connection has taken them.
    pub(crate) fn keep(receipt: Option<&Arc<Self>>, bytes: Bytes) -> Bytes {
        match receipt.and_then(|receipt| receipt.account.clone()) {
            Some(account) => account.keep(bytes),
            None => bytes,
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.delivered.notify_one();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("stream", &self.event_buffer.number)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// The bytes of memory that a message takes.
fn cost(line: &Bytes) -> usize {
    line.len() + BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 20 + 2 * BESIDE;
    const LIMITS: Limits = Limits { replay: MOST, unsent: MOST, stall: Duration::from_millis(50) };

    fn line(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn stream_ends_with_its_last_answer() {
        let (event_buffer, mut reader) = EventBuffer::answering(1, 2, Limits { unsent: 4 * MOST, ..LIMITS });
        event_buffer.push(line("note"), false, None).await;
        event_buffer.push(line("one"), true, None).await;
        event_buffer.push(line("two"), true, None).await;
        event_buffer.push(line("late"), true, None).await;
        let mut seen = Vec::new();
        while let Some(event) = reader.next().await {
            seen.push(event.line);
        }
        assert_eq!(seen, ["note", "one", "two"]);
    }

    #[tokio::test]
    async fn what_was_sent_can_be_read_again_within_the_limit() {
        let event_buffer = EventBuffer::standing(0, LIMITS);
        let mut reader = event_buffer.read_on();
        for text in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"] {
            event_buffer.push(line(text), false, None).await;
            assert_eq!(reader.next().await.map(|event| event.line), Some(line(text)));
        }
        let mut again = event_buffer.read(0);
        assert_eq!(again.next().await.map(|event| (event.next, event.line)), Some((2, line("bbbbbbbbbb"))));
        assert!(reader.next().await.is_none(), "the old reader goes on");
        assert_eq!(again.next().await.map(|event| event.next), Some(3));
        assert_eq!(event_buffer.held(), MOST);
    }

    #[tokio::test]
    async fn short_messages_count_with_what_they_take_besides_their_text() {
        let event_buffer = EventBuffer::standing(0, LIMITS);
        for _ in 0..100 {
            event_buffer.push(line("a"), false, None).await;
        }
        let mut reader = event_buffer.read(0);
        assert_eq!(reader.next().await.map(|event| event.next), Some(99));
        assert!(event_buffer.held() <= MOST);
    }

    #[tokio::test]
    async fn slow_reader_holds_the_writer_up_and_is_then_cut_off() {
        let event_buffer = EventBuffer::standing(0, LIMITS);
        let mut reader = event_buffer.read_on();
        event_buffer.push(line("aaaaaaaaaaaaaaa"), false, None).await;
        let slow = {
            let event_buffer = Arc::clone(&event_buffer);
            tokio::spawn(async move { event_buffer.push(line("bbbbbbbbbbbbbbb"), false, None).await })
        };
        tokio::task::yield_now().await;
        assert!(!slow.is_finished());
        assert_eq!(reader.next().await.map(|event| event.line), Some(line("aaaaaaaaaaaaaaa")));
        slow.await.expect("the writer goes on");
        event_buffer.push(line("ccccccccccccccc"), false, None).await;
        assert!(!event_buffer.is_read(), "a reader that reads nothing keeps the stream");
        assert!(event_buffer.held() <= 2 * MOST);
    }

    #[tokio::test]
    async fn leaving_is_told_only_before_the_end() {
        for (answered, told) in [(true, false), (false, true)] {
            let (event_buffer, mut reader) = EventBuffer::answering(1, 1, LIMITS);
            let (tell, mut heard) = tokio::sync::oneshot::channel();
            reader.on_leaving(move || tell.send(()).unwrap_or_default());
            if answered {
                event_buffer.push(line("one"), true, None).await;
                assert!(reader.only_one().await);
                reader.next().await;
            }
            drop(reader);
            assert_eq!(heard.try_recv().is_ok(), told);
        }
    }
}
