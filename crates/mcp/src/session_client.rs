//! The client of one session in the older era: its streams, and the resources that it has subscribed to.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::event_buffer::{EventBuffer, Limits, Reader};

/// The most streams that are kept for clients that come back.
const ENDED_STREAMS: usize = 32;

/// The most bytes of the subscriptions of one session, each counted as its address and what it takes besides.
const SUBSCRIPTIONS: usize = 64 * 1024;
/// The bytes that a subscription takes besides its address.
const SUBSCRIPTION: usize = 64;

/// The facts that are fixed when a session begins.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) id: &'a str,
    pub(crate) version: &'a str,
    pub(crate) owner: Option<&'a str>,
}

/// The client of a session.
pub(crate) struct SessionClient {
    /// The session's id.
    pub(crate) id: Box<str>,
    /// The owner who has begun the session, where that is told.
    pub(crate) owner: Option<Box<str>>,
    /// The protocol version that was agreed on.
    pub(crate) version: Box<str>,
    /// The capabilities of the client, by name, which say what it can be asked; `None` leaves that to the child to
    /// know.
    capabilities: Option<HashSet<String>>,
    /// The stream for messages that belong to no request.
    pub(crate) standing: Arc<EventBuffer>,
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    used: Instant,
    next: u64,
    streams: BTreeMap<u64, Arc<EventBuffer>>,
    subscribed: HashSet<String>,
}

// === impl SessionClient ===

impl SessionClient {
    pub(crate) fn new(opened: Opened<'_>, capabilities: Option<HashSet<String>>, limits: Limits) -> Self {
        let state = State { used: Instant::now(), next: 1, streams: BTreeMap::new(), subscribed: HashSet::new() };
        Self {
            id: opened.id.into(),
            owner: opened.owner.map(Into::into),
            version: opened.version.into(),
            capabilities,
            standing: EventBuffer::standing(0, limits),
            limits,
            state: Mutex::new(state),
        }
    }

    /// Notes that the client is there.
    pub(crate) fn touch(&self) {
        self.lock().used = Instant::now();
    }

    /// The time at which the client was last there; now, while it is connected or waits for an answer.
    pub(crate) fn used(&self) -> Instant {
        if self.is_connected() {
            self.touch();
        }
        self.lock().used
    }

    /// Whether the client has said that it can be asked this method.
    pub(crate) fn takes(&self, method: &str) -> bool {
        let Some(capabilities) = &self.capabilities else { return true };
        match method.split('/').next().unwrap_or_default() {
            "ping" => true,
            area => capabilities.contains(area),
        }
    }

    /// Whether the client reads any of its streams.
    pub(crate) fn is_connected(&self) -> bool {
        self.standing.is_read() || self.lock().streams.values().any(|stream| stream.is_read())
    }

    /// Opens a stream for the answers to this many requests. Old streams make room.
    pub(crate) fn open(&self, answers: usize) -> (Arc<EventBuffer>, Reader) {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let (event_buffer, reader) = EventBuffer::answering(number, answers, self.limits);
        state.streams.insert(number, Arc::clone(&event_buffer));
        state.make_room(self.limits.replay);
        (event_buffer, reader)
    }

    /// Goes on reading a stream that a client was cut off from.
    pub(crate) fn resume(&self, stream: u64, from: u64) -> Option<Reader> {
        if stream == self.standing.number {
            return Some(self.standing.read(from));
        }
        let event_buffer = self.lock().streams.get(&stream).cloned();
        event_buffer.map(|event_buffer| event_buffer.read(from))
    }

    /// Remembers a subscription; `false` when the session's subscriptions take too many bytes.
    pub(crate) fn subscribe(&self, uri: String) -> bool {
        let mut state = self.lock();
        if state.subscribed.contains(&uri) {
            return true;
        }
        let taken = state.subscribed.iter().map(|uri| uri.len() + SUBSCRIPTION).sum::<usize>();
        if taken + uri.len() + SUBSCRIPTION > SUBSCRIPTIONS {
            return false;
        }
        state.subscribed.insert(uri);
        true
    }

    /// Forgets a subscription.
    pub(crate) fn unsubscribe(&self, uri: &str) {
        self.lock().subscribed.remove(uri);
    }

    pub(crate) fn is_subscribed(&self, uri: &str) -> bool {
        self.lock().subscribed.contains(uri)
    }

    /// Ends the session's streams after the messages that they hold.
    pub(crate) fn close(&self) {
        self.standing.close();
        for stream in self.lock().streams.values() {
            stream.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl fmt::Debug for SessionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionClient").finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// Forgets streams that have ended and are not read, the oldest first.
    fn make_room(&mut self, budget: usize) {
        let ended: Vec<u64> =
            self.streams.iter().filter(|(_, s)| s.is_closed() && !s.is_read()).map(|(number, _)| *number).collect();
        let mut held: usize = ended.iter().filter_map(|number| self.streams.get(number)).map(|s| s.held()).sum();
        for (index, number) in ended.iter().enumerate() {
            if ended.len() - index <= ENDED_STREAMS && held <= budget {
                return;
            }
            held -= self.streams.remove(number).map_or(0, |stream| stream.held());
        }
    }
}
