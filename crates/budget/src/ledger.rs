//! The bookkeeping of a budget: who holds what, and who waits for more.
//!
//! Those who wait stand in lines, one of each project for its large requests and one for its small ones. What is given
//! back goes to the project that holds least (of several, to the one that has waited longest), and there to those first
//! who hold something already, then to whoever came first. While the first of a project that holds less waits, nobody
//! of a project that holds more gets anything: so many requests of one project cannot keep a large one of another
//! waiting for ever.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::exhausted::Exhausted;

/// The most bytes that an account may hold and still count as small.
pub const SMALL: usize = 64 * 1024;

/// The bounds of a budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes that all may hold.
    pub(crate) total: usize,
    /// Bytes that one project may hold.
    pub(crate) share: usize,
    /// Bytes that small requests may hold besides; those of one project a quarter of it.
    pub(crate) reserve: usize,
    /// Calls of one project that may be under way.
    pub(crate) calls: usize,
}

/// The bytes that are held, and the requests that wait.
#[derive(Debug)]
pub(crate) struct Ledger {
    bounds: Bounds,
    all: usize,
    projects: HashMap<u128, Project>,
    waiting: BTreeMap<Line, BTreeMap<QueuePosition, Waiter>>,
    arrivals: u64,
}

#[derive(Debug, Default)]
struct Project {
    held: usize,
    calls: usize,
    /// The number of arrivals when the project was last given bytes.
    served_at: u64,
}

/// A line: of the large or the small requests of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    is_large: bool,
    project: u128,
}

/// A place in a line. Those who hold something come first: what they hold is given back when they have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuePosition {
    holds_nothing: bool,
    arrival: u64,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    /// Bytes that its account holds.
    account: Arc<AtomicUsize>,
    granted: oneshot::Sender<()>,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) line: Line,
    pub(crate) place: QueuePosition,
    pub(crate) granted: oneshot::Receiver<()>,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, all: 0, projects: HashMap::new(), waiting: BTreeMap::new(), arrivals: 0 }
    }

    /// Bytes that all hold.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Counts a call of a project, if it may have another one under way.
    pub(crate) fn begin_call(&mut self, project: u128) -> Result<(), Exhausted> {
        let most = self.bounds.calls;
        let project = self.projects.entry(project).or_default();
        if project.calls >= most {
            return Err(Exhausted::Calls(most));
        }
        project.calls += 1;
        Ok(())
    }

    /// A call of a project has ended.
    pub(crate) fn end_call(&mut self, project: u128) {
        if let Some(of_project) = self.projects.get_mut(&project) {
            of_project.calls = of_project.calls.saturating_sub(1);
            self.forget_if_idle(project);
        }
    }

    /// Gives a request more bytes, or a place to wait for them; refuses what would be too much if it were alone.
    pub(crate) fn ask(
        &mut self,
        project: u128,
        account: &Arc<AtomicUsize>,
        bytes: usize,
    ) -> Result<Option<Ticket>, Exhausted> {
        let held = account.load(Ordering::Relaxed);
        let line = Line { is_large: held.saturating_add(bytes) > SMALL, project };
        if line.is_large && held.saturating_add(bytes) > self.bounds.share {
            return Err(Exhausted::Project(self.bounds.share));
        }
        // Small ones wait for nobody while there is room: they give back soon.
        if !line.is_large && self.room(line, bytes).is_ok() {
            self.give(project, account, bytes);
            return Ok(None);
        }
        self.arrivals += 1;
        let place = QueuePosition { holds_nothing: held == 0, arrival: self.arrivals };
        let (granted, mut receiver) = oneshot::channel();
        let waiter = Waiter { bytes, account: Arc::clone(account), granted };
        self.waiting.entry(line).or_default().insert(place, waiter);
        self.serve();
        Ok(receiver.try_recv().is_err().then(|| Ticket { line, place, granted: receiver }))
    }

    /// Takes a request out of its line; why it had to wait, unless it was given its bytes meanwhile.
    pub(crate) fn leave(&mut self, line: Line, place: QueuePosition) -> Result<(), Exhausted> {
        let Some(waiting) = self.waiting.get_mut(&line) else { return Ok(()) };
        let Some(waiter) = waiting.remove(&place) else { return Ok(()) };
        if waiting.is_empty() {
            self.waiting.remove(&line);
        }
        let refused = self.room(line, waiter.bytes);
        self.serve();
        // There is room that others come before it for.
        Err(refused.err().unwrap_or(Exhausted::Server(self.bounds.total)))
    }

    /// Takes bytes back.
    pub(crate) fn give_back(&mut self, project: u128, bytes: usize) {
        self.all -= bytes;
        if let Some(of_project) = self.projects.get_mut(&project) {
            of_project.held = of_project.held.saturating_sub(bytes);
            self.forget_if_idle(project);
        }
        self.serve();
    }

    /// Gives those who wait what there is room for.
    fn serve(&mut self) {
        for is_large in [false, true] {
            while let Some((line, place)) = self.next(is_large) {
                let first = self.waiting.get_mut(&line).and_then(|waiting| waiting.remove(&place));
                self.waiting.retain(|_, waiting| !waiting.is_empty());
                if let Some(Waiter { bytes, account, granted }) = first {
                    self.give(line.project, &account, bytes);
                    // Whoever has gone away gives back what its account holds.
                    granted.send(()).ok();
                }
            }
        }
    }

    /// The request that is served next, if there is room: the first of the project that holds least of those that may
    /// hold more.
    fn next(&self, is_large: bool) -> Option<(Line, QueuePosition)> {
        let firsts = self.waiting.iter().filter(|(line, _)| line.is_large == is_large).filter_map(|(line, waiting)| {
            let (place, waiter) = waiting.first_key_value()?;
            Some((*line, *place, waiter.bytes))
        });
        let may = firsts.filter(|(line, _, bytes)| self.share_for(*line, *bytes).is_ok());
        let (line, place, bytes) = may.min_by_key(|(line, place, _)| {
            let project = self.projects.get(&line.project);
            (project.map_or((0, 0), |project| (project.held, project.served_at)), place.arrival)
        })?;
        self.room(line, bytes).is_ok().then_some((line, place))
    }

    /// Whether there is room for so many bytes more.
    fn room(&self, line: Line, bytes: usize) -> Result<(), Exhausted> {
        self.share_for(line, bytes)?;
        let more = if line.is_large { 0 } else { self.bounds.reserve };
        let fits = self.all.saturating_add(bytes) <= self.bounds.total + more;
        if fits { Ok(()) } else { Err(Exhausted::Server(self.bounds.total)) }
    }

    /// Whether the project may hold so many bytes more.
    fn share_for(&self, line: Line, bytes: usize) -> Result<(), Exhausted> {
        let more = if line.is_large { 0 } else { self.bounds.reserve / 4 };
        let fits = self.held_by(line.project).saturating_add(bytes) <= self.bounds.share + more;
        if fits { Ok(()) } else { Err(Exhausted::Project(self.bounds.share)) }
    }

    fn held_by(&self, project: u128) -> usize {
        self.projects.get(&project).map_or(0, |project| project.held)
    }

    fn give(&mut self, project: u128, account: &AtomicUsize, bytes: usize) {
        self.all += bytes;
        let of_project = self.projects.entry(project).or_default();
        of_project.held += bytes;
        of_project.served_at = self.arrivals;
        account.fetch_add(bytes, Ordering::Relaxed);
    }

    fn forget_if_idle(&mut self, project: u128) {
        if self.projects.get(&project).is_some_and(|project| project.held == 0 && project.calls == 0) {
            self.projects.remove(&project);
        }
    }
}
