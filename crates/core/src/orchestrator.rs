//! Builds the concerns of the service from the bottom up, and starts their tasks.

use std::{
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use emergent_provider::Provider;
use emergent_store::Store;

use crate::{
    background::Background,
    calls::Calls,
    cluster::servers::Servers,
    config::CoreConfig,
    creation::{Creation, snapshot_locks::SnapshotLocks},
    foundation::{Foundation, StartError},
    idle::IdleKeeper,
    leftovers::Leftovers,
    lifecycle::Lifecycle,
    placement::status::Readiness,
    pool::{Pool, PoolKeeper},
    quota::capacity::Capacities,
    reconcile::Reconciler,
    retention::Retention,
    sessions::Sessions,
    snapshots::Snapshots,
    usage::UsageSampler,
    workspace::change::Changes,
};

/// The time that a shutdown waits for operations under way.
const GRACE: Duration = Duration::from_secs(25);
/// The time that start-up waits for the engines before calls are taken all the same.
const FIRST_LOOK: Duration = Duration::from_secs(20);

/// The concerns of the service.
pub(crate) struct Orchestrator {
    pub(crate) base: Foundation,
    pub(crate) servers: Arc<Servers>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) creation: Arc<Creation>,
    pub(crate) changes: Changes,
    pub(crate) calls: Arc<Calls>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) capacities: Arc<Capacities>,
    pub(crate) usage: Arc<UsageSampler>,
    reconciler: Arc<Reconciler>,
    reconciled: AtomicBool,
}

// === impl Orchestrator ===

impl Orchestrator {
    pub(crate) async fn new(
        config: CoreConfig,
        store: Store,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Result<Self, StartError> {
        let base = Foundation::new(config, store, providers).await?;
        let Foundation { config, store, providers, registry, lookup, lease, .. } = &base;
        // Known before the first call comes in: what lives answers at once.
        for row in store.workspaces_of(store.server_id()).await? {
            base.guests.enter(&row);
        }
        let pool =
            Pool::new(config.warm_pool_size, &config.warm_pool_images, config.default_limits, Arc::clone(providers));
        let pool = Arc::new(pool);
        let locks = Arc::<SnapshotLocks>::default();
        let servers = Arc::new(Servers::new(store.clone(), Arc::clone(registry), Arc::clone(lease)));
        let lifecycle = Arc::new(Lifecycle::new(&base));
        let leftovers = Arc::new(Leftovers::new(&base, Arc::clone(&lifecycle)));
        let creation = Arc::new(Creation::new(
            &base,
            Arc::clone(&pool),
            Arc::clone(&servers),
            Arc::clone(&lifecycle),
            Arc::clone(&locks),
        ));
        let snapshots = Arc::new(Snapshots::new(
            &base,
            Arc::clone(&lifecycle),
            Arc::clone(&creation),
            Arc::clone(&leftovers),
            locks,
        ));
        let reconciler = Reconciler::new(
            &base,
            Arc::clone(&pool),
            Arc::clone(&lifecycle),
            Arc::clone(&leftovers),
            Arc::clone(&snapshots),
        );
        Ok(Self {
            changes: Changes::new(store.clone(), Arc::clone(registry), lookup.clone(), Arc::clone(providers)),
            calls: Arc::new(Calls::new(&base, Arc::clone(&lifecycle))),
            sessions: Arc::new(Sessions::new(&base, Arc::clone(&lifecycle))),
            capacities: Arc::new(Capacities::new(
                store.clone(),
                lookup.clone(),
                config.max_concurrent,
                config.alert_threshold_pct,
            )),
            usage: Arc::new(UsageSampler::new(&base)),
            reconciler: Arc::new(reconciler),
            reconciled: AtomicBool::new(false),
            servers,
            pool,
            lifecycle,
            creation,
            snapshots,
            leftovers,
            base,
        })
    }

    /// Starts the tasks of all concerns.
    pub(crate) fn start(self: &Arc<Self>) {
        let Self { base, reconciler, .. } = &**self;
        let tasks = &base.tasks;
        let background =
            Background::new(base, Arc::clone(&self.pool), Arc::clone(&self.capacities), Arc::clone(&self.lifecycle));
        let background = Arc::new(background);
        let pool_keeper = Arc::new(PoolKeeper::new(base, Arc::clone(&self.pool)));
        let retention = Arc::new(Retention::new(base));
        let behind = Arc::new(AtomicUsize::new(base.providers.iter().count()));
        if behind.load(Ordering::Acquire) == 0 {
            self.note_reconciled();
        }
        for registered in base.providers.iter() {
            let caught_up = catch_up_counter(Arc::clone(self), Arc::clone(&behind));
            tasks.spawn(Arc::clone(reconciler).watch(Arc::clone(registered), caught_up));
            tasks.spawn(Arc::clone(&background).keep_asking(Arc::clone(registered)));
            tasks.spawn(Arc::clone(&base.host).keep_guard(Arc::clone(registered)));
        }
        if base.config.enabled {
            for image_pool in self.pool.image_pools() {
                tasks.spawn(Arc::clone(&pool_keeper).keep_warm(Arc::clone(image_pool)));
            }
        }
        tasks.spawn(take_calls_in_the_end(Arc::clone(self)));
        tasks.spawn(Arc::clone(reconciler).keep_lease());
        tasks.spawn(Arc::clone(reconciler).keep_rechecking());
        tasks.spawn(Arc::clone(reconciler).keep_recording_use());
        tasks.spawn(Arc::clone(&retention).keep_clean());
        tasks.spawn(retention.keep_audit_short());
        tasks.spawn(Arc::clone(&background).keep_to_expiry());
        tasks.spawn(background.keep_counting());
        tasks.spawn(Arc::clone(&self.usage).keep_sampling());
        tasks.spawn(Arc::new(IdleKeeper::new(base, Arc::clone(&self.lifecycle))).keep_idle_at_rest());
    }

    /// Lets operations under way end, within a grace period, and ends all tasks.
    pub(crate) async fn shutdown(&self) {
        self.base.tasks.go_down();
        for entry in self.base.registry.all() {
            entry.give_up();
        }
        if !self.base.tasks.ended(GRACE).await {
            tracing::warn!("operations were still under way; the next start takes them up again");
        }
        self.base.recorder.record_use().await;
        self.base.audit.close().await;
    }

    /// Returns whether the service takes calls.
    pub(crate) fn readiness(&self) -> Readiness {
        if self.base.tasks.is_going_down() {
            Readiness::ShuttingDown
        } else if self.base.lease.is_draining() {
            Readiness::Draining
        } else if self.reconciled.load(Ordering::Acquire) {
            Readiness::Ready
        } else {
            Readiness::Reconciling
        }
    }

    fn note_reconciled(&self) {
        self.reconciled.store(true, Ordering::Release);
    }
}

/// Returns a function that marks a provider as caught up with; only its first call counts.
fn catch_up_counter(core: Arc<Orchestrator>, behind: Arc<AtomicUsize>) -> impl Fn() + Send + Sync {
    let first = Once::new();
    move || {
        first.call_once(|| {
            if behind.fetch_sub(1, Ordering::AcqRel) == 1 {
                core.note_reconciled();
            }
        });
    }
}

/// Lets the service take calls after [`FIRST_LOOK`], so that an absent engine does not block the workspaces of the
/// others.
async fn take_calls_in_the_end(core: Arc<Orchestrator>) {
    tokio::select! {
        () = tokio::time::sleep(FIRST_LOOK) => core.note_reconciled(),
        () = core.base.tasks.going_down() => {}
    }
}
