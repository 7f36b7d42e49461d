//! The state that the parts of the service share.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, Utc};
use emergent_guest_client::Guest;
use emergent_provider::{ByteStream, Provider, ProviderKind};
use emergent_sandbox::guest_of;
use emergent_store::{ProjectId, StateKind, Store, StoreError, WorkspaceRow, WorkspaceState};
use emergent_types::WorkspaceId;
use tokio::{sync::watch, task::JoinError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CoreConfig, LookupError, StartError,
    audit::Audit,
    cluster::lease::Lease,
    placement::{images::Images, providers::Providers},
    pool::Pool,
    reconcile::{pending_state_writes::Unrecorded, recheck_queue::Doubts},
    snapshots::Locks,
    workspace::{
        admissions::Admissions,
        registry::{Entry, Registry, WorkspaceGuard},
        state::SuspendReason,
        steps::Steps,
    },
};

/// The states that a workspace may have had before `destroyed`. Only `destroyed` follows upon `destroying`: an
/// operation that was under way when the destruction began does not bring the workspace back.
const NOT_DESTROYED: [StateKind; 7] = [
    StateKind::Destroying,
    StateKind::Creating,
    StateKind::Ready,
    StateKind::Paused,
    StateKind::Stopping,
    StateKind::Stopped,
    StateKind::Error,
];

/// The service behind the facade. Each concern adds its methods in a file of its own.
pub(crate) struct Orchestrator {
    pub(crate) config: CoreConfig,
    pub(crate) store: Store,
    pub(crate) providers: Providers,
    pub(crate) pool: Pool,
    pub(crate) admissions: Admissions,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lease: Lease,
    pub(crate) steps: Steps,
    pub(crate) audit: Audit,
    pub(crate) snapshot_locks: Locks,
    pub(crate) images: Images,
    /// The tasks of the service.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the service shuts down: loops end, operations under way go on.
    pub(crate) going_down: CancellationToken,
    pub(crate) reconciled: AtomicBool,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) unrecorded: Unrecorded,
    /// Counts the times at which rows may have become another server's, or this server's.
    pub(crate) ownership: watch::Sender<u64>,
}

/// The result of a look-up of a workspace.
pub(crate) enum Found {
    /// This process drives the workspace.
    Entry(Arc<Entry>),
    /// The workspace is destroyed: only its row is left.
    Destroyed,
}

/// Continues the panic of an owned task. Tasks of the service are never aborted, except by the end of the runtime,
/// which then ends the caller, too.
pub(crate) fn propagate(error: JoinError) -> ! {
    match error.try_into_panic() {
        Ok(panic) => panic::resume_unwind(panic),
        Err(error) => panic!("a task outlived its runtime: {error}"),
    }
}

// === impl Orchestrator ===

impl Orchestrator {
    pub(crate) async fn new(
        config: CoreConfig,
        store: Store,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Result<Self, StartError> {
        let registry = Arc::<Registry>::default();
        let server = store.servers_find(store.server_id()).await?;
        let core = Self {
            images: Images::new(&config, store.clone())?,
            audit: Audit::start(store.clone()),
            steps: Steps::new(config.fault, Arc::clone(&registry)),
            providers: Providers::new(providers, config.deployment_mode),
            pool: Pool::new(config.warm_pool_size, &config.warm_pool_images, config.default_limits),
            admissions: Admissions::default(),
            snapshot_locks: Locks::default(),
            tasks: TaskTracker::new(),
            going_down: CancellationToken::new(),
            reconciled: AtomicBool::new(false),
            lease: Lease::new(server.as_ref()),
            started_at: Utc::now(),
            doubts: Arc::default(),
            unrecorded: Unrecorded::default(),
            ownership: watch::Sender::default(),
            config,
            store,
            registry,
        };
        // Known before the first call comes in: what lives answers at once.
        for row in core.store.workspaces_of(core.store.server_id()).await? {
            core.enter(&row);
        }
        Ok(core)
    }

    /// Makes the entry of a workspace and adds it to the registry.
    pub(crate) fn enter(&self, row: &WorkspaceRow) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(row, || self.new_guest(row.provider, row.id, None)));
        self.registry.insert(Arc::clone(&entry));
        entry
    }

    /// Makes the entry of a workspace that is yet to be made, and takes its turn, which nobody else has had.
    pub(crate) async fn enter_new(&self, row: &WorkspaceRow) -> (Arc<Entry>, WorkspaceGuard) {
        let entry = Arc::new(Entry::new(row, || self.new_guest(row.provider, row.id, None)));
        let turn = entry.turn().await;
        self.registry.insert(Arc::clone(&entry));
        (entry, turn)
    }

    /// Makes a client for a workspace's guest, without a connection.
    pub(crate) fn new_guest(&self, provider: ProviderKind, workspace: WorkspaceId, first: Option<ByteStream>) -> Guest {
        let provider = self.providers.get(provider).map(|registered| Arc::clone(&registered.provider));
        let doubts = Arc::clone(&self.doubts);
        guest_of(provider, workspace, first, move || doubts.raise(workspace))
    }

    pub(crate) fn is_going_down(&self) -> bool {
        self.going_down.is_cancelled()
    }

    pub(crate) fn is_reconciled(&self) -> bool {
        self.reconciled.load(Ordering::Acquire)
    }

    pub(crate) fn note_reconciled(&self) {
        self.reconciled.store(true, Ordering::Release);
    }

    /// Finds a project's workspace.
    pub(crate) async fn find(&self, project: ProjectId, id: WorkspaceId) -> Result<Found, LookupError> {
        self.check_enabled()?;
        if let Some(entry) = self.registry.get(id) {
            return if entry.project == project { Ok(Found::Entry(entry)) } else { Err(LookupError::NotFound) };
        }
        match self.store.workspaces_get(project, id).await? {
            Some(row) if row.state.word() == StateKind::Destroyed => Ok(Found::Destroyed),
            // Another server's, or one whose create has recorded its row this very moment.
            Some(_) | None => Err(LookupError::NotFound),
        }
    }

    pub(crate) async fn row(&self, project: ProjectId, id: WorkspaceId) -> Result<WorkspaceRow, LookupError> {
        self.check_enabled()?;
        self.store.workspaces_get(project, id).await?.ok_or(LookupError::NotFound)
    }

    pub(crate) fn check_enabled(&self) -> Result<(), LookupError> {
        if self.config.enabled { Ok(()) } else { Err(LookupError::Disabled) }
    }

    /// Records that a workspace rests; returns whether somebody asked for the rest or it is for idleness.
    pub(crate) async fn record_rest(
        &self,
        id: WorkspaceId,
        state: &WorkspaceState,
    ) -> Result<SuspendReason, StoreError> {
        let row = self.record_row(id, state).await?;
        Ok(row.as_ref().map_or(SuspendReason::Asked, SuspendReason::of))
    }

    /// Records a state whatever the state before, unless the workspace is destroyed, being destroyed, or another
    /// server's.
    pub(crate) async fn record(&self, id: WorkspaceId, state: &WorkspaceState) -> Result<(), StoreError> {
        self.record_row(id, state).await.map(drop)
    }

    async fn record_row(&self, id: WorkspaceId, state: &WorkspaceState) -> Result<Option<WorkspaceRow>, StoreError> {
        let from = if *state == WorkspaceState::Destroyed { &NOT_DESTROYED[..] } else { &NOT_DESTROYED[1..] };
        let recorded = self.store.workspaces_record(id, from, state).await;
        match &recorded {
            Ok(_) => self.unrecorded.forget(id),
            Err(_) => self.unrecorded.note(id, state),
        }
        let recorded = recorded?;
        if recorded.is_none()
            && let Some(row) = self.store.workspaces_find(id).await?
            && row.server != self.store.server_id()
        {
            return Err(StoreError::Moved(id));
        }
        Ok(recorded)
    }
}
