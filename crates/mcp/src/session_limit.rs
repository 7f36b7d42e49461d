//! The bound on the sessions of several bridges together.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// The sessions of one bridge.
pub(crate) trait Sessions: Send + Sync {
    /// The number of places that sessions take, those that are being made included.
    fn taken(&self) -> usize;

    /// The time of the last use of the session that was not used for the longest time; `None` where all are in use.
    fn oldest_unused(&self) -> Option<Instant>;

    /// Ends that session, for one that takes its place.
    fn end_oldest_unused(&self);
}

/// The most sessions that all bridges with this limit have together. Clones are the same limit; the default bounds
/// nothing.
#[derive(Clone)]
pub struct SessionLimit(Arc<Limited>);

struct Limited {
    most: usize,
    bridges: Mutex<Vec<Weak<dyn Sessions>>>,
}

/// The bridges of a limit, of which none gets another session while this is held.
pub(crate) struct Bridges<'a> {
    most: usize,
    all: MutexGuard<'a, Vec<Weak<dyn Sessions>>>,
}

// === impl SessionLimit ===

impl SessionLimit {
    /// A limit of so many sessions. One more takes the place of the one that was not used for the longest time, of
    /// whichever bridge; it is refused with 429 where all are connected or wait for an answer.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Limited { most, bridges: Mutex::default() }))
    }

    /// Counts a bridge's sessions from now on.
    pub(crate) fn join(&self, bridge: &Arc<impl Sessions + 'static>) {
        let bridge = Arc::downgrade(bridge);
        self.lock().all.push(bridge);
    }

    pub(crate) fn lock(&self) -> Bridges<'_> {
        Bridges { most: self.0.most, all: self.0.bridges.lock() }
    }
}

impl Default for SessionLimit {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl fmt::Debug for SessionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLimit").field("most", &self.0.most).finish_non_exhaustive()
    }
}

// === impl Bridges ===

impl Bridges<'_> {
    /// Makes room for one more session where there is none; `None` where every session is in use.
    pub(crate) fn make_room(&mut self) -> Option<()> {
        self.all.retain(|bridge| bridge.strong_count() > 0);
        let bridges: Vec<_> = self.all.iter().filter_map(Weak::upgrade).collect();
        if bridges.iter().map(|bridge| bridge.taken()).sum::<usize>() < self.most {
            return Some(());
        }
        let unused = bridges.iter().filter_map(|bridge| bridge.oldest_unused().map(|used| (bridge, used)));
        let (bridge, _) = unused.min_by_key(|(_, used)| *used)?;
        bridge.end_oldest_unused();
        Some(())
    }
}
