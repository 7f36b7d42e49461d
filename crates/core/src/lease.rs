//! This server's lease: whether it may act on its workspaces, and what happens when it may not.
//!
//! Whoever is about to change a workspace asks [`Core::may_act`] first. While the lease was renewed a moment ago that
//! costs nothing. A server that was suspended, or cut off from the database, finds that its lease may have run out, and
//! renews it before it does anything: had it run out, other servers may have taken workspaces over, and this one lets
//! go of them without touching them. Calls to workspaces need no lease, so that they go on while the database is away.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use emergent_store::{Engines, Renewal, ServerRow, StoreError, TakenOver};
use tokio::time::{interval, timeout};

use crate::{
    inner::{Core, chain},
    registry::Entry,
};

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How long after its last renewal a lease is relied on: the rest is for what is done on the strength of it.
const RELIED_ON: Duration = Duration::from_secs(20);
/// How long after a failure callers do not wait for another attempt. Longer than [`RENEW`]: there is one attempt.
const FAILED_LATELY: Duration = Duration::from_secs(20);
/// How long an engine may take to say which one it is.
const ENGINE_TIME: Duration = Duration::from_secs(3);

/// What this process knows of its lease.
pub(crate) struct Lease {
    renewed: Mutex<Renewed>,
    failed: Mutex<Option<Instant>>,
    /// Held while it is renewed: many who need it ask once.
    renewing: tokio::sync::Mutex<()>,
    /// The engines, as they last said.
    engines: Mutex<Engines>,
    draining: AtomicBool,
}

/// When the lease was last known to run. A clock that stops while the machine sleeps is not enough, nor is one that
/// can be set.
#[derive(Clone, Copy)]
struct Renewed {
    monotonic: Instant,
    wall: SystemTime,
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
    /// The lease that opening the store has just claimed.
    pub(crate) fn new(server: Option<&ServerRow>) -> Self {
        Self {
            renewed: Mutex::new(Renewed::now()),
            failed: Mutex::new(None),
            renewing: tokio::sync::Mutex::default(),
            engines: Mutex::default(),
            draining: AtomicBool::new(server.is_some_and(|server| server.draining)),
        }
    }

    fn is_fresh(&self) -> bool {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).is_recent()
    }

    /// Whether a renewal has failed since then.
    fn failed_since(&self, then: Instant) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at > then)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
    }

    fn engines(&self) -> Engines {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl Core ===

impl Core {
    /// Renews the lease and takes over what dead servers leave, for the life of the service.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        let mut ticks = interval(RENEW);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.going_down.cancelled() => return,
            }
            let reachable = self.ask_engines().await;
            match self.renew().await {
                Ok(()) => self.take_over(&reachable).await,
                Err(error) => tracing::warn!(reason = chain(&error), "the server's lease could not be renewed"),
            }
        }
    }

    /// Whether this server may change its workspaces now; makes sure where that is in doubt.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub(crate) async fn may_act(&self) -> Result<(), StoreError> {
        if self.lease.is_fresh() { Ok(()) } else { self.renew().await }
    }

    /// The same, for one workspace: it must not be another server's.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub(crate) async fn may_act_on(&self, entry: &Entry) -> Result<(), StoreError> {
        self.may_act().await?;
        if entry.is_moved() { Err(StoreError::Moved(entry.id)) } else { Ok(()) }
    }

    /// Finds out whether a workspace that this server has may be another's by now, as far as that can be told: while
    /// the database is away, it cannot have been taken over either.
    pub(crate) async fn freshen(&self) {
        let recently = Instant::now().checked_sub(FAILED_LATELY);
        if !self.lease.is_fresh() && !recently.is_some_and(|recently| self.lease.failed_since(recently)) {
            // A failure is logged by whoever keeps the lease.
            self.renew().await.ok();
        }
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let _one = self.lease.renewing.lock().await;
        if self.lease.renewed.lock().unwrap_or_else(PoisonError::into_inner).monotonic > asked {
            return Ok(());
        }
        if self.lease.failed_since(asked) {
            return Err(StoreError::InDoubt);
        }
        let renewed = self.renew_now().await;
        if renewed.is_err() {
            *self.lease.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        renewed
    }

    async fn renew_now(&self) -> Result<(), StoreError> {
        let before = Renewed::now();
        let server = match self.store.servers_renew(&self.lease.engines()).await? {
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
        self.lease.set_draining(server.draining);
        *self.lease.renewed.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok(())
    }

    /// Lets go of the workspaces that are another server's now, and takes up those that are this one's.
    async fn look_whose(&self) -> Result<(), StoreError> {
        let rows = self.store.workspaces_of(self.store.server_id()).await?;
        let mut own = rows.into_iter().map(|row| (row.id, row)).collect::<HashMap<_, _>>();
        for entry in self.registry.all() {
            if own.remove(&entry.id).is_none() {
                tracing::warn!(workspace = %entry.id, "another server has taken the workspace over");
                self.registry.remove(entry.id);
                entry.let_go();
            }
        }
        for row in own.values() {
            self.enter(row);
        }
        self.ownership.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Which engines can be reached now, and which they are.
    async fn ask_engines(&self) -> Engines {
        let mut reachable = BTreeMap::new();
        for registered in self.providers.iter() {
            if let Ok(Ok(Some(id))) = timeout(ENGINE_TIME, registered.provider.engine_id()).await {
                reachable.insert(registered.provider.kind(), id);
            }
        }
        // Of an engine that is away for a moment, what is known stays known.
        self.lease.engines.lock().unwrap_or_else(PoisonError::into_inner).extend(reachable.clone());
        reachable
    }

    /// Takes the workspaces over of servers that are dead, where their engine is one of this server's.
    async fn take_over(self: &Arc<Self>, reachable: &Engines) {
        let servers = match self.store.servers_list().await {
            Ok(servers) => servers,
            Err(error) => return tracing::warn!(reason = chain(&error), "the other servers could not be listed"),
        };
        for dead in servers.iter().filter(|server| !server.alive && server.id != self.store.server_id()) {
            let shared = dead.engines.iter().filter(|(provider, engine)| reachable.get(provider) == Some(engine));
            let shared = shared.map(|(provider, _)| *provider).collect::<Vec<_>>();
            if shared.is_empty() {
                continue;
            }
            match self.store.servers_take_over(dead.id, &shared).await {
                Ok(TakenOver { workspaces: rows, mcp_servers: 0 }) if rows.is_empty() => {}
                Ok(TakenOver { workspaces: rows, mcp_servers }) => {
                    let workspaces = rows.len();
                    tracing::warn!(server = %dead.title(), workspaces, mcp_servers, "took over what a dead server had");
                    self.ownership.send_modify(|count| *count += 1);
                    for row in &rows {
                        self.enter(row);
                    }
                    // Beside this loop: a guest that does not answer must not cost this server its own lease.
                    let (core, ids) = (Arc::clone(self), rows.into_iter().map(|row| row.id).collect::<Vec<_>>());
                    self.tasks.spawn(async move { core.look_again_at_all(ids.into_iter()).await });
                }
                Err(error) => {
                    tracing::warn!(reason = chain(&error), "a dead server's workspaces could not be taken over")
                }
            }
        }
    }
}
