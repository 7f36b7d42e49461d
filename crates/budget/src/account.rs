//! Bytes that are held: counted in all and for each project, each under a bound.
//!
//! ```text
//!   total  ├──────────────────────────────────────┤ reserve ├   what small accounts may use besides
//!   share  ├────────────┤                                       what one project may hold of it
//! ```
//!
//! A large request waits for others to give back, and is refused when that takes too long. A small one may also use the
//! reserve, so that ordinary calls go on while large ones wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// The most bytes that an account may hold and still count as small.
pub const SMALL: usize = 64 * 1024;
/// How long a request waits for bytes that others hold.
const PATIENCE: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CURRENT: Account;
}

/// The bytes that all requests of a server may hold. Clones are the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    total: usize,
    share: usize,
    reserve: usize,
    held: Mutex<Held>,
    given_back: Notify,
}

#[derive(Default)]
struct Held {
    all: usize,
    projects: HashMap<u128, usize>,
}

/// The bytes that one request holds. Clones are the same account; all of it is given back when the last is dropped.
#[derive(Clone)]
pub struct Account(Arc<Entry>);

struct Entry {
    budget: Budget,
    project: OnceLock<u128>,
    held: AtomicUsize,
}

/// Why bytes cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The project's share is used up by its other requests.
    #[error(
        "the project's other requests hold all of the {0} bytes that it may hold at once; try again when some have ended"
    )]
    Project(usize),
    /// The server's budget is used up.
    #[error("other requests hold all of the {0} bytes that the server may hold at once; try again in a moment")]
    Server(usize),
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes. One project may hold three eighths of it; small requests may use an eighth besides.
    pub fn new(total: usize) -> Self {
        Self::with_share(total, total / 8 * 3)
    }

    /// A budget of `total` bytes for one user.
    pub fn undivided(total: usize) -> Self {
        Self::with_share(total, total)
    }

    fn with_share(total: usize, share: usize) -> Self {
        let (held, given_back) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { total, share, reserve: total / 8, held, given_back }))
    }

    /// An account for one request.
    pub fn account(&self) -> Account {
        let (project, held) = (OnceLock::new(), AtomicUsize::new(0));
        Account(Arc::new(Entry { budget: self.clone(), project, held }))
    }

    /// How many bytes all requests hold now.
    pub fn held(&self) -> usize {
        self.lock().all
    }

    /// Locks the counts. Nothing can panic under this lock.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Account ===

impl Account {
    /// The account of the request that this task works for, if there is one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Runs a future as work for this account's request: [`current`](Self::current) returns this account in it.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs a closure as work for this account's request.
    pub(crate) fn sync_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// An account of the same project, for a part of the request that gives back by itself.
    #[must_use]
    pub fn another(&self) -> Self {
        let another = self.0.budget.account();
        if let Some(project) = self.0.project.get() {
            another.belongs_to(*project);
        }
        another
    }

    /// Sets the project of the request. The first call decides; until then bytes count for the project 0.
    pub fn belongs_to(&self, project: u128) {
        self.0.project.get_or_init(|| project);
    }

    /// How many bytes the account holds.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Holds more bytes; waits a while for others to give back.
    ///
    /// # Errors
    /// [`Exhausted`] when that took too long. The bytes that were held before stay held.
    pub async fn hold(&self, bytes: usize) -> Result<(), Exhausted> {
        if self.try_hold(bytes).is_ok() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Registered before the look, so that what is given back in between is not missed.
            let given_back = self.0.budget.0.given_back.notified();
            let mut given_back = std::pin::pin!(given_back);
            let refused = match self.try_hold(bytes) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if !given_back.as_mut().enable() && timeout_at(deadline, given_back).await.is_err() {
                return Err(refused);
            }
        }
    }

    /// Holds more bytes if there is room now.
    ///
    /// # Errors
    /// [`Exhausted`] when there is none.
    pub fn try_hold(&self, bytes: usize) -> Result<(), Exhausted> {
        let Shared { total, share, reserve, .. } = *self.0.budget.0;
        let project = self.0.project.get().copied().unwrap_or_default();
        let mut held = self.0.budget.lock();
        let own = held.projects.get(&project).copied().unwrap_or_default();
        let (more, of_project) = match self.held().saturating_add(bytes) <= SMALL {
            true => (reserve, reserve / 4),
            false => (0, 0),
        };
        if own.saturating_add(bytes) > share + of_project {
            return Err(Exhausted::Project(share));
        }
        if held.all.saturating_add(bytes) > total + more {
            return Err(Exhausted::Server(total));
        }
        held.all += bytes;
        *held.projects.entry(project).or_default() += bytes;
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let bytes = *self.held.get_mut();
        if bytes == 0 {
            return;
        }
        let project = self.project.get().copied().unwrap_or_default();
        let mut held = self.budget.lock();
        held.all -= bytes;
        if let Some(own) = held.projects.get_mut(&project) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                held.projects.remove(&project);
            }
        }
        drop(held);
        self.budget.0.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn account(budget: &Budget, project: u128) -> Account {
        let account = budget.account();
        account.belongs_to(project);
        account
    }

    #[test]
    fn one_project_holds_no_more_than_its_share_and_all_together_no_more_than_the_total() {
        let budget = Budget::new(8 * MIB);
        let first = account(&budget, 1);
        first.try_hold(3 * MIB).unwrap();
        assert_eq!(account(&budget, 1).try_hold(MIB), Err(Exhausted::Project(3 * MIB)));
        let others = [2, 3].map(|project| account(&budget, project));
        others[0].try_hold(3 * MIB).unwrap();
        others[1].try_hold(2 * MIB).unwrap();
        assert_eq!(others[1].try_hold(MIB), Err(Exhausted::Server(8 * MIB)));
        drop(first);
        others[1].try_hold(MIB).unwrap();
        assert_eq!(budget.held(), 6 * MIB);
        drop(others);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn small_requests_go_on_while_large_ones_hold_everything() {
        let budget = Budget::new(8 * MIB);
        let large = [1, 2, 3].map(|project| account(&budget, project));
        large[0].try_hold(3 * MIB).unwrap();
        large[1].try_hold(3 * MIB).unwrap();
        large[2].try_hold(2 * MIB).unwrap();
        for project in [1, 4] {
            let small = account(&budget, project);
            small.try_hold(SMALL).unwrap();
            assert!(small.try_hold(1).is_err(), "it is not small any more");
        }
    }

    #[test]
    fn a_part_of_a_request_gives_back_by_itself_and_counts_for_its_project() {
        let budget = Budget::new(8 * MIB);
        let whole = account(&budget, 1);
        let part = whole.another();
        part.try_hold(3 * MIB).unwrap();
        assert_eq!(whole.try_hold(MIB), Err(Exhausted::Project(3 * MIB)));
        drop(part);
        whole.try_hold(MIB).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_waits_for_others_and_not_for_ever() {
        let budget = Budget::new(8 * MIB);
        let (first, second) = (account(&budget, 1), account(&budget, 1));
        first.try_hold(3 * MIB).unwrap();
        assert!(second.hold(2 * MIB).await.is_err());
        let (held, ()) = tokio::join!(second.hold(2 * MIB), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        held.unwrap();
        assert_eq!(budget.held(), 2 * MIB);
    }
}
