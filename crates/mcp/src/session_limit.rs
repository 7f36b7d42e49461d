//! The bound on the sessions of several bridges together.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::bridge::Inner;

/// The most sessions that all bridges with this limit have together. Clones are the same limit; the default bounds
/// nothing.
#[derive(Clone)]
pub struct SessionLimit(Arc<Limited>);

struct Limited {
    most: usize,
    bridges: Mutex<Vec<Weak<Inner>>>,
}

/// The bridges of a limit, of which none gets another session while this is held.
pub(crate) struct Bridges<'a> {
    most: usize,
    all: MutexGuard<'a, Vec<Weak<Inner>>>,
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
    pub(crate) fn join(&self, bridge: &Arc<Inner>) {
        self.lock().all.push(Arc::downgrade(bridge));
    }

    pub(crate) fn lock(&self) -> Bridges<'_> {
        Bridges { most: self.0.most, all: self.0.bridges.lock().unwrap_or_else(PoisonError::into_inner) }
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
        let unused = bridges.iter().flat_map(|bridge| bridge.unused().into_iter().map(move |it| (bridge, it)));
        let (bridge, oldest) = unused.min_by_key(|(_, session)| session.used())?;
        bridge.make_room(&oldest);
        Some(())
    }
}
