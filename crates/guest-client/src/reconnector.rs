//! A connection that is opened when it is needed and opened again when it breaks.
//!
//! ```text
//!            call                 greeted
//!   idle ───────────► opening ───────────► open
//!    ▲                   │                  │
//!    └───── failed, ◄────┘                  │
//!    ▲      backing off                     │
//!    └────────── broken, suspended ◄────────┘          any ──► closed
//! ```
//!
//! Opening is one shared future: whoever calls first makes it, all who call meanwhile wait for the same one, and it
//! goes on as long as any of them does. No lock is held while anybody waits.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::Hello;
use emergent_provider::ByteStream;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{
    Open,
    connection::{Connection, Purpose},
    error::OpenError,
};

/// The time that one call waits for a connection, over all attempts.
pub(crate) const OPEN_BUDGET: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// A connection for one purpose, whether it is open or not.
pub(crate) struct Reconnector {
    opener: Arc<dyn Open>,
    purpose: Purpose,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// A stream that is open already, for the next attempt.
    first: Option<ByteStream>,
    /// Attempts that have failed since one succeeded.
    failures: u32,
    /// Grows with every attempt, so that an old one's end is not taken for the new one's.
    attempt: u64,
    /// The guest's newest greeting.
    hello: Option<Arc<Hello>>,
}

enum State {
    Idle { not_before: Instant },
    Opening(Opening),
    Open(Connection),
    Closed,
}

type Opening = Shared<BoxFuture<'static, Result<Connection, Arc<OpenError>>>>;

// === impl Reconnector ===

impl Reconnector {
    pub(crate) fn new(opener: Arc<dyn Open>, purpose: Purpose, first: Option<ByteStream>) -> Self {
        let state = State::Idle { not_before: Instant::now() };
        let inner = Inner { state, first, failures: 0, attempt: 0, hello: None };
        Self { opener, purpose, inner: Mutex::new(inner) }
    }

    /// The connection, opened if need be; tries again with backoff for [`OPEN_BUDGET`], but not beyond `deadline`.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Connection, Arc<OpenError>> {
        let give_up = deadline.min(Instant::now() + OPEN_BUDGET);
        let mut last_error = None;
        loop {
            let (attempt, opening) = match self.current() {
                Current::Open(connection) => return Ok(connection),
                Current::Closed => return Err(Arc::new(OpenError::Closed)),
                Current::Opening { attempt, opening } => (attempt, opening),
            };
            let Ok(opened) = timeout_at(give_up, opening).await else {
                return Err(last_error.unwrap_or_else(|| Arc::new(OpenError::Silent(OPEN_BUDGET))));
            };
            match self.settle(attempt, opened) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.is_worth_a_retry() => last_error = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// The guest's newest greeting.
    pub(crate) fn last_hello(&self) -> Option<Arc<Hello>> {
        self.lock().hello.clone()
    }

    /// Closes the connection; the next call opens it again, on `first` if there is one.
    pub(crate) fn reset(&self, first: Option<ByteStream>) {
        let mut inner = self.lock();
        if let State::Open(connection) = &inner.state {
            connection.cut();
        }
        if !matches!(inner.state, State::Closed) {
            inner.state = State::Idle { not_before: Instant::now() };
            inner.attempt += 1;
            inner.failures = 0;
            inner.first = first;
        }
    }

    /// Closes the connection for good.
    pub(crate) fn close(&self) {
        self.reset(None);
        self.lock().state = State::Closed;
    }

    /// The connection that is open, or the attempt that is under way, begun here if there is none.
    fn current(&self) -> Current {
        let mut inner = self.lock();
        let not_before = match &inner.state {
            State::Open(connection) if !connection.is_over() => return Current::Open(connection.clone()),
            State::Open(_) => Instant::now(),
            State::Opening(opening) => return Current::Opening { attempt: inner.attempt, opening: opening.clone() },
            State::Idle { not_before } => *not_before,
            State::Closed => return Current::Closed,
        };
        inner.attempt += 1;
        let opening = self.attempt(inner.first.take(), not_before).boxed().shared();
        inner.state = State::Opening(opening.clone());
        Current::Opening { attempt: inner.attempt, opening }
    }

    /// Notes how an attempt ended, once, however many waited for it.
    fn settle(&self, attempt: u64, opened: Result<Connection, Arc<OpenError>>) -> Result<Connection, Arc<OpenError>> {
        let mut inner = self.lock();
        if inner.attempt == attempt && matches!(inner.state, State::Opening(_)) {
            match &opened {
                Ok(connection) => {
                    inner.failures = 0;
                    inner.hello = Some(connection.hello.clone());
                    inner.state = State::Open(connection.clone());
                }
                Err(error) => {
                    // That the sandbox does not run is known at once, and may change at once.
                    let backoff = match error.is_worth_a_retry() {
                        true => FIRST_BACKOFF * 2_u32.saturating_pow(inner.failures.min(16)),
                        false => Duration::ZERO,
                    };
                    inner.failures += 1;
                    inner.state = State::Idle { not_before: Instant::now() + backoff.min(LONGEST_BACKOFF) };
                }
            }
        }
        opened
    }

    fn attempt(
        &self,
        first: Option<ByteStream>,
        not_before: Instant,
    ) -> impl Future<Output = Result<Connection, Arc<OpenError>>> + use<> {
        let (opener, purpose) = (self.opener.clone(), self.purpose);
        let open = async move {
            let stream = match first {
                Some(stream) => stream,
                None => opener.open().await?,
            };
            Connection::establish(stream, purpose).await
        };
        async move {
            sleep_until(not_before).await;
            let opened = timeout(OPEN_BUDGET, open).await;
            opened.unwrap_or(Err(OpenError::Silent(OPEN_BUDGET))).map_err(Arc::new)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the state whole before it could panic.
        self.inner.lock()
    }
}

enum Current {
    Open(Connection),
    Opening { attempt: u64, opening: Opening },
    Closed,
}
