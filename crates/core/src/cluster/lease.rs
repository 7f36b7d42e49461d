//! This server's lease: whether it may act on its workspaces, and what happens when it may not.
//!
//! Code that is about to change a workspace asks [`Lease::ensure`] first. While the lease was renewed a moment ago,
//! that costs nothing. A server that was suspended, or cut off from the database, finds that its lease may
//! have run out, and renews it before it does anything. If the lease had run out, other servers may have taken
//! workspaces over; this server then lets go of them without touching them. Calls to workspaces need no lease, so that
//! they go on while the database is away.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use emergent_provider::OperationError;
use emergent_store::{Engines, Renewal, ServerRow, Store, StoreError, WorkspaceRow};
use emergent_types::{ServerId, WorkspaceId};
use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use crate::{
    guests::Guests,
    placement::providers::{Providers, Registered},
    workspace::{admissions::Admissions, entry::Entry, registry::Registry},
};

/// The time for which a lease is relied on after its last renewal. The rest of its term is for the work that relies on
/// it.
const RELIED_ON: Duration = Duration::from_secs(20);
/// The time for which callers do not wait for another attempt after a failed renewal. Longer than the interval of
/// regular renewals, so that there is only one attempt.
const FAILED_LATELY: Duration = Duration::from_secs(20);
/// The time that an engine may take to identify itself.
const ENGINE_TIME: Duration = Duration::from_secs(3);

/// This server's lease.
pub(crate) struct Lease {
    store: Store,
    providers: Arc<Providers>,
    registry: Arc<Registry>,
    admissions: Admissions,
    guests: Arc<Guests>,
    renewed: Mutex<Renewed>,
    failed: Mutex<Option<Instant>>,
    /// Held during a renewal, so that many callers share one request.
    renewing: tokio::sync::Mutex<()>,
    /// The engines, as of their last answers.
    engines: Mutex<Engines>,
    /// Whether this server refuses new workspaces.
    draining: watch::Sender<bool>,
    /// Counts the times at which rows may have become another server's, or this server's.
    ownership: watch::Sender<u64>,
}

/// The time at which the lease was last known to run, by two clocks: one clock stops while the machine sleeps, and the
/// other can be set.
#[derive(Clone, Copy)]
struct Renewed {
    monotonic: Instant,
    wall: SystemTime,
}

/// The workspaces that were taken from this server or given to it.
struct Changed {
    /// Workspaces that are another server's now.
    lost: Vec<Arc<Entry>>,
    /// Workspaces that are this server's now.
    gained: Vec<WorkspaceRow>,
}

/// Compares the earlier entries with the current rows. `comes_otherwise` answers for a row without an entry whether the
/// task that makes the workspace enters it, or has just done so.
fn compare(known: Vec<Arc<Entry>>, rows: Vec<WorkspaceRow>, comes_otherwise: impl Fn(WorkspaceId) -> bool) -> Changed {
    let mut own = rows.into_iter().map(|row| (row.id, row)).collect::<HashMap<_, _>>();
    let lost = known.into_iter().filter(|entry| own.remove(&entry.id).is_none()).collect();
    let gained = own.into_values().filter(|row| !comes_otherwise(row.id)).collect();
    Changed { lost, gained }
}

// === impl Renewed ===

impl Renewed {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn is_recent(&self) -> bool {
        let by_wall = self.wall.elapsed().is_ok_and(|elapsed| elapsed < RELIED_ON);
        by_wall && self.monotonic.elapsed() < RELIED_ON
    }
}

// === impl Lease ===

impl Lease {
    /// Makes the lease that opening the store has just claimed.
    pub(crate) fn new(
        server: Option<&ServerRow>,
        store: Store,
        providers: Arc<Providers>,
        registry: Arc<Registry>,
        admissions: Admissions,
        guests: Arc<Guests>,
    ) -> Self {
        Self {
            store,
            providers,
            registry,
            admissions,
            guests,
            renewed: Mutex::new(Renewed::now()),
            failed: Mutex::new(None),
            renewing: tokio::sync::Mutex::default(),
            engines: Mutex::default(),
            draining: watch::Sender::new(server.is_some_and(|server| server.draining)),
            ownership: watch::Sender::default(),
        }
    }

    fn is_fresh(&self) -> bool {
        self.renewed.lock().is_recent()
    }

    /// Returns whether a renewal has failed since `then`.
    fn failed_since(&self, then: Instant) -> bool {
        self.failed.lock().is_some_and(|at| at > then)
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns whether this server refuses new workspaces, and the changes of that from now on.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.send_if_modified(|now| std::mem::replace(now, draining) != draining);
    }

    /// Returns a counter that changes whenever rows may have become another server's, or this server's.
    pub(crate) fn ownership(&self) -> watch::Receiver<u64> {
        self.ownership.subscribe()
    }

    /// Notes that rows may have become another server's, or this server's.
    pub(crate) fn note_changed_ownership(&self) {
        self.ownership.send_modify(|count| *count += 1);
    }

    /// Makes sure that this server may change its workspaces now; renews the lease where that is in doubt.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub(crate) async fn ensure(&self) -> Result<(), StoreError> {
        if self.is_fresh() { Ok(()) } else { self.renew().await }
    }

    /// Makes sure that this server may change this workspace: the lease must run, and the workspace must not be another
    /// server's.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub(crate) async fn may_act_on(&self, entry: &Entry) -> Result<(), StoreError> {
        self.ensure().await?;
        if entry.is_moved() { Err(StoreError::Moved(entry.id)) } else { Ok(()) }
    }

    /// Renews the lease where it may have run out, and so finds out whether another server has taken workspaces over.
    /// Ignores a failure: while the database is away, no other server can have done so.
    pub(crate) async fn freshen(&self) {
        let recently = Instant::now().checked_sub(FAILED_LATELY);
        if !self.is_fresh() && !recently.is_some_and(|recently| self.failed_since(recently)) {
            // A failure is logged by whoever keeps the lease.
            self.renew().await.ok();
        }
    }

    /// Renews the lease; callers that come meanwhile share the renewal.
    pub(crate) async fn renew(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let _one = self.renewing.lock().await;
        if self.renewed.lock().monotonic > asked {
            return Ok(());
        }
        if self.failed_since(asked) {
            return Err(StoreError::InDoubt);
        }
        let renewed = self.renew_now().await;
        if renewed.is_err() {
            *self.failed.lock() = Some(Instant::now());
        }
        renewed
    }

    async fn renew_now(&self) -> Result<(), StoreError> {
        let before = Renewed::now();
        let engines = self.engines.lock().clone();
        let server = match self.store.servers_renew(&engines).await? {
            Renewal::Renewed(server) => server,
            Renewal::ClaimedAnew(server) => {
                tracing::warn!("the server's lease had run out; looking which workspaces are still its own");
                self.look_whose().await?;
                server
            }
            Renewal::Usurped => {
                tracing::error!("another process runs as this server; this one does nothing more to its workspaces");
                return Err(StoreError::Usurped);
            }
        };
        self.set_draining(server.draining);
        *self.renewed.lock() = before;
        Ok(())
    }

    /// Lets go of the workspaces that are another server's now, and enters those that are this server's now.
    async fn look_whose(&self) -> Result<(), StoreError> {
        // Before the rows: what comes into the registry meanwhile has a row that may be younger than what is read.
        let known = self.registry.all();
        let rows = self.store.workspaces_of(self.store.server_id()).await?;
        let Changed { lost, gained } =
            compare(known, rows, |id| self.admissions.has(id) || self.registry.get(id).is_some());
        for entry in lost {
            tracing::warn!(workspace = %entry.id, "another server has taken the workspace over");
            self.registry.remove(entry.id);
            entry.let_go();
        }
        for row in &gained {
            self.guests.enter(row);
        }
        self.note_changed_ownership();
        Ok(())
    }

    /// Tells the engines again that this process acts for its server. A provider that learns of another process for the
    /// server reports that itself and does nothing more.
    pub(crate) async fn hold_engines(&self) {
        for registered in self.providers.iter() {
            timeout(ENGINE_TIME, registered.provider.hold()).await.ok();
        }
    }

    /// Returns the servers whose processes tell this engine that they act, whatever the database knows of them: the
    /// database may be a copy of theirs.
    pub(crate) async fn acting_on(&self, registered: &Registered) -> HashSet<ServerId> {
        let asked = async {
            let records = registered.provider.holders().await?;
            if records.is_empty() {
                return Ok(HashSet::new());
            }
            let now = registered.provider.engine_time().await?;
            let alive = records.into_iter().filter(|record| record.may_be_alive(now));
            Ok::<_, OperationError>(alive.map(|record| record.server).collect())
        };
        match timeout(ENGINE_TIME, asked).await {
            Ok(Ok(acting)) => acting,
            // What the database says is all that is known then.
            Ok(Err(_)) | Err(_) => HashSet::new(),
        }
    }

    /// Asks the engines for their identities; returns those that can be reached now.
    pub(crate) async fn ask_engines(&self) -> Engines {
        let mut reachable = BTreeMap::new();
        for registered in self.providers.iter() {
            if let Ok(Ok(Some(id))) = timeout(ENGINE_TIME, registered.provider.engine_id()).await {
                reachable.insert(registered.provider.kind(), id);
            }
        }
        // Of an engine that is away for a moment, what is known stays known.
        self.engines.lock().extend(reachable.clone());
        reachable
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use emergent_guest_client::{Guest, Open};
    use emergent_provider::{ByteStream, ChannelError, ContainerKind, ImageRef, ProviderKind};
    use emergent_store::{ProjectId, WorkspaceSpec, WorkspaceState};
    use emergent_test_interleavings::{Who, of};
    use emergent_types::{NetworkPolicy, ResourceLimits};

    use super::*;

    struct Nowhere;

    #[async_trait::async_trait]
    impl Open for Nowhere {
        async fn open(&self) -> Result<ByteStream, ChannelError> {
            Err(ChannelError::NotRunning)
        }
    }

    pub(crate) fn row() -> WorkspaceRow {
        let spec = WorkspaceSpec {
            kind: ContainerKind::AgentWorkspace,
            image: "ubuntu:22.04".parse::<ImageRef>().unwrap(),
            limits: ResourceLimits { cpu: 1.0, memory_bytes: 1, disk_bytes: 1, pids: 1 },
            network: NetworkPolicy::None,
            allow_root: false,
            environment_keys: Vec::new(),
        };
        let (id, project, server) = (WorkspaceId::generate(), ProjectId::generate(), ServerId::generate());
        let row = WorkspaceRow::new(id, project, server, ProviderKind::Docker, spec);
        WorkspaceRow { state: WorkspaceState::Ready, ..row }
    }

    pub(crate) fn entry(row: &WorkspaceRow) -> Arc<Entry> {
        Arc::new(Entry::new(row, || Guest::new(Arc::new(Nowhere), None)))
    }

    /// A create has four steps, and so has whoever looks whose the workspaces are: the entries, the rows, and of a row
    /// without an entry the admissions and the registry.
    #[test]
    fn a_create_is_neither_lost_nor_entered_twice_whenever_the_lease_is_renewed() {
        let row = row();
        for order in of(4, 4) {
            let (admissions, registry) = (Admissions::default(), Registry::default());
            let (mut admission, mut rows, mut step) = (None, Vec::new(), 0);
            let mut create = || {
                match step {
                    0 => admission = Some(admissions.begin(row.id)),
                    1 => rows.push(row.clone()),
                    2 => registry.insert(entry(&row)),
                    _ => drop(admission.take()),
                }
                step += 1;
                rows.clone()
            };
            let mut read = Vec::new();
            let (mut known, mut found, mut comes, mut asked) = (Vec::new(), Vec::new(), false, 0);
            for who in &order {
                match (who, asked) {
                    (Who::Other, _) => read = create(),
                    (Who::One, 0) => known = registry.all(),
                    (Who::One, 1) => found = read.clone(),
                    (Who::One, 2) => comes |= admissions.has(row.id),
                    (Who::One, _) => comes |= registry.get(row.id).is_some(),
                }
                asked += usize::from(*who == Who::One);
            }
            let Changed { lost, gained } = compare(known, found, |_| comes);
            assert!(lost.is_empty(), "lost: {order:?}");
            assert!(gained.is_empty(), "entered twice: {order:?}");
        }
    }

    #[test]
    fn a_workspace_that_is_admitted_while_the_rows_are_read_stays_this_servers() {
        let (kept, moved, admitted, taken_over) = (row(), row(), row(), row());
        let known = vec![entry(&kept), entry(&moved)];
        // The row of what is being admitted may be among those that were read, or not.
        for rows in [vec![kept.clone(), taken_over.clone(), admitted.clone()], vec![kept.clone(), taken_over.clone()]] {
            let Changed { lost, gained } = compare(known.clone(), rows, |id| id == admitted.id);
            assert_eq!(lost.iter().map(|entry| entry.id).collect::<Vec<_>>(), [moved.id]);
            assert_eq!(gained.iter().map(|row| row.id).collect::<Vec<_>>(), [taken_over.id]);
        }
    }
}
