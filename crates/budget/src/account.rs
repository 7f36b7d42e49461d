//! Bytes that are held, and calls that are under way: counted in all and for each project, each under a bound.
//!
//! ```text
//!   total  ├──────────────────────────────────────┤ reserve ├   what small accounts may use besides
//!   share  ├────────────┤                                       what one project may hold of it
//! ```
//!
//! A large request waits for others to give back, in turn (`ledger`), and is refused when that takes too long. A small
//! one may also use the reserve, so that ordinary calls go on while large ones wait.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::{
    exhausted::Exhausted,
    ledger::{Bounds, Ledger, Ticket},
};

/// The time that a request waits for bytes that others hold.
const PATIENCE: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CURRENT: Account;
}

/// The bytes that all requests of a server may hold. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Mutex<Ledger>>);

/// The bytes that one request holds. Clones are the same account; all of it is given back when the last is dropped.
#[derive(Debug, Clone)]
pub struct Account(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    budget: Budget,
    owner: OnceLock<Owner>,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    project: u128,
    /// Whether it was counted as a call that is under way.
    is_call: bool,
}

/// A request that waits, and leaves its line when it is dropped.
struct Waiting<'a> {
    account: &'a Account,
    ticket: Ticket,
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes. One project may hold three eighths of it, and have so many calls under way; small
    /// requests may use an eighth besides.
    pub fn new(total: usize, calls: usize) -> Self {
        Self::within(Bounds { total, share: total / 8 * 3, reserve: total / 8, calls })
    }

    /// A budget of `total` bytes for one user.
    pub fn undivided(total: usize) -> Self {
        Self::within(Bounds { total, share: total, reserve: total / 8, calls: usize::MAX })
    }

    fn within(bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(bounds))))
    }

    /// An account for one request.
    pub fn account(&self) -> Account {
        let (owner, held) = (OnceLock::new(), Arc::default());
        Account(Arc::new(Entry { budget: self.clone(), owner, held }))
    }

    /// Returns the number of bytes that all requests hold now.
    pub fn held(&self) -> usize {
        self.lock().all()
    }

    /// Locks the ledger. Nothing can panic under this lock.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock()
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
        if let Some(owner) = self.0.owner.get() {
            another.belongs_to(owner.project);
        }
        another
    }

    /// Sets the project of the request. The first call decides; until then no project's share is used.
    pub fn belongs_to(&self, project: u128) {
        self.0.owner.get_or_init(|| Owner { project, is_call: false });
    }

    /// Sets the project of the request and counts it as a call that is under way until the last clone is dropped. The
    /// first call decides.
    ///
    /// # Errors
    /// [`Exhausted::Calls`] when the project has too many under way.
    pub fn begin_call(&self, project: u128) -> Result<(), Exhausted> {
        if self.0.owner.get().is_some() {
            return Ok(());
        }
        self.0.budget.lock().begin_call(project)?;
        let is_first = self.0.owner.set(Owner { project, is_call: true }).is_ok();
        if !is_first {
            self.0.budget.lock().end_call(project);
        }
        Ok(())
    }

    /// Whether the project of the request is known.
    pub fn has_owner(&self) -> bool {
        self.0.owner.get().is_some()
    }

    /// Returns the number of bytes that the account holds.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Holds more bytes; waits a while for others to give back.
    ///
    /// # Errors
    /// [`Exhausted`] when that took too long. The bytes that were held before stay held.
    pub async fn hold(&self, bytes: usize) -> Result<(), Exhausted> {
        let Some(mut waiting) = self.ask(bytes)? else { return Ok(()) };
        match timeout(PATIENCE, &mut waiting.ticket.granted).await {
            Ok(_) => Ok(()),
            Err(_) => waiting.leave(),
        }
    }

    /// Holds more bytes if there is room now, and nobody waits for it.
    ///
    /// # Errors
    /// [`Exhausted`] when there is none.
    pub fn try_hold(&self, bytes: usize) -> Result<(), Exhausted> {
        self.ask(bytes)?.map_or(Ok(()), |waiting| waiting.leave())
    }

    /// Holds more bytes, or waits in line.
    fn ask(&self, bytes: usize) -> Result<Option<Waiting<'_>>, Exhausted> {
        let ticket = self.0.budget.lock().ask(self.0.project(), &self.0.held, bytes)?;
        Ok(ticket.map(|ticket| Waiting { account: self, ticket }))
    }
}

// === impl Entry ===

impl Entry {
    fn project(&self) -> u128 {
        self.owner.get().map_or(0, |owner| owner.project)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (project, bytes) = (self.project(), self.held.load(Ordering::Relaxed));
        let is_call = self.owner.get().is_some_and(|owner| owner.is_call);
        if bytes == 0 && !is_call {
            return;
        }
        let mut ledger = self.budget.lock();
        if is_call {
            ledger.end_call(project);
        }
        if bytes > 0 {
            ledger.give_back(project, bytes);
        }
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// Waits no longer; all is well if its turn has come meanwhile.
    fn leave(&self) -> Result<(), Exhausted> {
        self.account.0.budget.lock().leave(self.ticket.line, self.ticket.place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Nothing is there where its turn has come, or it has left.
        self.leave().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake};

    use super::*;
    use crate::SMALL;

    const MIB: usize = 1 << 20;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn account(budget: &Budget, project: u128) -> Account {
        let account = budget.account();
        account.belongs_to(project);
        account
    }

    #[test]
    fn one_project_holds_no_more_than_its_share_and_all_together_no_more_than_the_total() {
        let budget = Budget::new(8 * MIB, 2);
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
        let budget = Budget::new(8 * MIB, 2);
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
        let budget = Budget::new(8 * MIB, 2);
        let whole = account(&budget, 1);
        let part = whole.another();
        part.try_hold(3 * MIB).unwrap();
        assert_eq!(whole.try_hold(MIB), Err(Exhausted::Project(3 * MIB)));
        drop(part);
        whole.try_hold(MIB).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_waits_for_others_and_not_for_ever() {
        let budget = Budget::new(8 * MIB, 2);
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

    #[tokio::test(start_paused = true)]
    async fn a_project_that_holds_less_has_its_turn_before_those_that_hold_all() {
        let budget = Budget::new(8 * MIB, 2);
        let mut held: Vec<_> = [(1, 3), (2, 3), (3, 2)]
            .into_iter()
            .map(|(project, mib)| {
                let account = account(&budget, project);
                account.try_hold(mib * MIB).unwrap();
                account
            })
            .collect();
        // More calls of the three wait than there will ever be room for, and have waited for longer.
        let more: Vec<_> = [3; 20].into_iter().chain([1; 20]).map(|project| account(&budget, project)).collect();
        let mut greedy = futures::future::join_all(more.iter().map(|account| account.hold(MIB)));
        assert!(futures::poll!(&mut greedy).is_pending());
        let late = account(&budget, 4);
        let mut turn = std::pin::pin!(late.hold(3 * MIB));
        assert!(futures::poll!(&mut turn).is_pending());
        drop(held.pop());
        assert!(futures::poll!(&mut turn).is_pending(), "two of its three are there");
        drop(held.pop());
        turn.await.unwrap();
        assert_eq!(more.iter().map(Account::held).sum::<usize>(), 2 * MIB, "they go on with what is left");
        assert_eq!(budget.held(), 8 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_woken_without_something_to_take() {
        let budget = Budget::new(8 * MIB, 2);
        let (first, second) = (account(&budget, 1), account(&budget, 1));
        first.try_hold(3 * MIB).unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut waiting = std::pin::pin!(second.hold(2 * MIB));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for _ in 0..100 {
            account(&budget, 1).hold(SMALL).await.unwrap();
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_project_whoever_came_first_goes_first() {
        let budget = Budget::new(8 * MIB, 2);
        let first = account(&budget, 1);
        first.try_hold(3 * MIB).unwrap();
        let [large, small, gone] = [0, 1, 2].map(|_| account(&budget, 1));
        let mut left = Box::pin(gone.hold(3 * MIB));
        assert!(futures::poll!(&mut left).is_pending());
        let (mut large_turn, mut small_turn) = (Box::pin(large.hold(3 * MIB)), Box::pin(small.hold(MIB)));
        assert!(futures::poll!(&mut large_turn).is_pending() && futures::poll!(&mut small_turn).is_pending());
        drop(left);
        drop(first);
        (&mut large_turn).await.unwrap();
        drop(large_turn);
        assert!(futures::poll!(&mut small_turn).is_pending());
        drop(large);
        small_turn.await.unwrap();
    }

    #[test]
    fn a_project_has_no_more_calls_under_way_than_it_may_have() {
        let budget = Budget::new(8 * MIB, 2);
        let begin = |project| {
            let account = budget.account();
            account.begin_call(project).map(|()| account)
        };
        let (first, second) = (begin(1).unwrap(), begin(1).unwrap());
        let (clone, part) = (first.clone(), first.another());
        part.begin_call(1).unwrap();
        first.begin_call(1).unwrap();
        assert_eq!(begin(1).unwrap_err(), Exhausted::Calls(2));
        begin(2).unwrap();
        drop((first, part));
        begin(1).unwrap_err();
        drop(clone);
        begin(1).unwrap();
        drop(second);
    }
}
