//! What the drivers and the facade share.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use emergent_core::Workspaces;
use emergent_guest_client::{Guest, Open};
use emergent_mcp::Bridge;
use emergent_provider::{
    ByteStream, ChannelError, CreateStep, DestroyStep, Provider, PullProgress, SnapshotId, SnapshotStep, StepObserver,
    WorkspaceId,
};
use emergent_store::{McpServerId, McpServerRow, McpServerState, ProjectId, Store};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{HostingConfig, HostingError, launcher::Gate, proxy::Proxy};

/// So many calls in a row that time out mean that a server does not respond.
const UNRESPONSIVE: u32 = 3;

/// The service behind the facade.
pub(crate) struct Inner {
    pub(crate) config: HostingConfig,
    pub(crate) store: Store,
    pub(crate) provider: Option<Arc<dyn Provider>>,
    /// Whose lease this works on.
    pub(crate) workspaces: Workspaces,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the service goes down: drivers let go of their servers, which run on.
    pub(crate) going_down: CancellationToken,
    /// Counts the times at which servers may have changed hands.
    pub(crate) ownership: watch::Receiver<u64>,
    /// The count for which it was last looked whose they are.
    pub(crate) looked: AtomicU64,
    /// Held by the one that looks.
    pub(crate) looking: tokio::sync::Mutex<()>,
    servers: RwLock<HashMap<McpServerId, Arc<Entry>>>,
    /// Counts what happens to them.
    pub(crate) changes: watch::Sender<u64>,
}

/// One server that this process drives.
pub(crate) struct Entry {
    pub(crate) id: McpServerId,
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    pub(crate) guest: Guest,
    pub(crate) gate: watch::Sender<Gate>,
    /// Told when the sandbox may have ended.
    pub(crate) doubt: Arc<Notify>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Cancelled when another server of the installation has taken it over.
    pub(crate) let_go: CancellationToken,
    state: watch::Sender<(McpServerState, Option<String>)>,
    changes: watch::Sender<u64>,
    endpoint: Mutex<Option<Arc<Endpoint>>>,
    /// Calls in a row that have timed out.
    timeouts: AtomicU32,
}

/// What answers for a server.
pub(crate) enum Endpoint {
    Bridge(Bridge),
    Proxy(Proxy),
}

/// What a driver is asked to do.
pub(crate) enum Command {
    /// Start it afresh.
    Restart(Reply),
    /// Bring it to what its row says.
    Update(Reply),
    /// Remove it.
    Delete(Reply),
}

pub(crate) type Reply = oneshot::Sender<Result<(), HostingError>>;

/// Opens channels to one server's sandbox.
struct Opener {
    provider: Option<Arc<dyn Provider>>,
    sandbox: WorkspaceId,
    doubt: Arc<Notify>,
}

// === impl Inner ===

impl Inner {
    pub(crate) fn new(
        config: HostingConfig,
        store: Store,
        provider: Option<Arc<dyn Provider>>,
        workspaces: Workspaces,
    ) -> Self {
        Self {
            config,
            store,
            provider,
            ownership: workspaces.changes_of_ownership(),
            looked: AtomicU64::new(0),
            looking: tokio::sync::Mutex::default(),
            workspaces,
            tasks: TaskTracker::new(),
            going_down: CancellationToken::new(),
            servers: RwLock::default(),
            changes: watch::Sender::default(),
        }
    }

    pub(crate) fn get(&self, id: McpServerId) -> Option<Arc<Entry>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The server that a text names by its id or its name, where this process drives it.
    pub(crate) fn given(&self, project: ProjectId, given: &str) -> Option<Arc<Entry>> {
        let id: Option<McpServerId> = given.parse().ok();
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let mut own = servers.values().filter(|entry| entry.project == project);
        own.find(|entry| id.map_or(entry.name == given, |id| entry.id == id)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn remove(&self, id: McpServerId) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes the entry of a server, whose commands come out of the receiver; `None` where there is one.
    pub(crate) fn enter(&self, row: &McpServerRow) -> Option<(Arc<Entry>, mpsc::Receiver<Command>)> {
        let id = row.id;
        let doubt = Arc::new(Notify::new());
        let opener = Opener { provider: self.provider.clone(), sandbox: id.sandbox(), doubt: Arc::clone(&doubt) };
        let (commands, receiver) = mpsc::channel(16);
        let entry = Arc::new(Entry {
            id,
            project: row.project,
            name: row.name.clone(),
            guest: Guest::new(Arc::new(opener), None),
            gate: watch::Sender::new(Gate::Opening),
            doubt,
            commands,
            let_go: CancellationToken::new(),
            state: watch::Sender::new((row.state, row.message.clone())),
            changes: self.changes.clone(),
            endpoint: Mutex::default(),
            timeouts: AtomicU32::new(0),
        });
        match self.servers.write().unwrap_or_else(PoisonError::into_inner).entry(id) {
            hash_map::Entry::Occupied(_) => return None,
            hash_map::Entry::Vacant(place) => drop(place.insert(Arc::clone(&entry))),
        }
        self.changes.send_modify(|count| *count += 1);
        Some((entry, receiver))
    }
}

impl StepObserver for Inner {
    fn created(&self, _: WorkspaceId, step: CreateStep) {
        self.pass(step.name());
    }

    fn destroyed(&self, _: WorkspaceId, step: DestroyStep) {
        self.pass(step.name());
    }

    fn snapshot_taken(&self, _: SnapshotId, _: SnapshotStep) {}

    fn pulling(&self, workspace: WorkspaceId, progress: PullProgress) {
        if let Some(entry) = self.get(workspace.into()) {
            let PullProgress { bytes, total_bytes, status } = progress;
            entry.say(McpServerState::Starting, Some(format!("pulling its image: {status} {bytes} of {total_bytes}")));
        }
    }
}

impl Inner {
    /// Passes a step of an operation.
    pub(crate) fn pass(&self, step: &'static str) {
        if let Some(fault) = self.config.fault {
            fault.strike(step);
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn state(&self) -> (McpServerState, Option<String>) {
        self.state.borrow().clone()
    }

    /// Waits until it is no longer on its way to running, for so long at most.
    pub(crate) async fn settle(&self, at_most: Duration) {
        let mut state = self.state.subscribe();
        // Whether it settles or the time is up, it is seen as it is.
        let _ = timeout(at_most, state.wait_for(|(state, _)| *state != McpServerState::Starting)).await;
    }

    /// Where its requests go, once it has settled.
    pub(crate) async fn ready(&self, at_most: Duration) -> Result<Arc<Endpoint>, HostingError> {
        self.settle(at_most).await;
        let (state, message) = self.state();
        match (state, self.endpoint()) {
            (McpServerState::Running | McpServerState::BackingOff | McpServerState::Stopped, Some(endpoint)) => {
                Ok(endpoint)
            }
            _ => Err(HostingError::NotRunning { state, message }),
        }
    }

    /// That it takes no calls, and why: by its state, if that knows, which alone says whether another try has a chance.
    pub(crate) fn not_running(&self, reason: String) -> HostingError {
        let (state, message) = self.state();
        HostingError::NotRunning { state, message: message.or(Some(reason)) }
    }

    /// Says where it is in its life; the row follows.
    pub(crate) fn say(&self, state: McpServerState, message: Option<String>) {
        if self.state.send_replace((state, message)).0 != state {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_endpoint(&self, endpoint: Option<Arc<Endpoint>>) {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
    }

    /// A call has timed out; answers whether the server counts as unresponsive from now on.
    pub(crate) fn timed_out(&self) -> bool {
        self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 == UNRESPONSIVE
    }

    /// A call was answered, or the server was started again.
    pub(crate) fn responds(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_unresponsive(&self) -> bool {
        self.timeouts.load(Ordering::Relaxed) >= UNRESPONSIVE
    }
}

#[async_trait]
impl Open for Opener {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let provider = self.provider.as_ref().ok_or(ChannelError::NotRunning)?;
        let opened = provider.open(self.sandbox).await;
        if matches!(opened, Err(ChannelError::NotRunning)) {
            self.doubt.notify_one();
        }
        opened
    }
}
