//! The state that the drivers and the facade share.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use emergent_budget::Budget;
use emergent_core::Workspaces;
use emergent_guest_client::Guest;
use emergent_mcp::Bridge;
use emergent_provider::Provider;
use emergent_sandbox::guest_of;
use emergent_store::{McpServerId, McpServerRow, McpServerState, ProjectId, Store};
use emergent_types::{CreateStep, DestroyStep, PullProgress, SandboxId, SnapshotId, SnapshotStep, StepObserver};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{HostingConfig, HostingError, launcher::Gate, proxy::Proxy};

/// The number of silent calls in a row after which a server counts as unresponsive.
const UNRESPONSIVE: u32 = 3;

/// The service behind the facade.
pub(crate) struct Inner {
    pub(crate) config: HostingConfig,
    /// Holds what servers write.
    pub(crate) budget: Budget,
    pub(crate) store: Store,
    pub(crate) provider: Option<Arc<dyn Provider>>,
    /// The core, under whose lease hosting acts.
    pub(crate) workspaces: Workspaces,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the process begins to stop.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the service goes down: drivers let go of their servers, which run on.
    pub(crate) going_down: CancellationToken,
    /// A counter of the times at which servers may have changed hands.
    pub(crate) ownership: watch::Receiver<u64>,
    /// The value of `ownership` for which the servers' owners were last looked up.
    pub(crate) looked: AtomicU64,
    /// The lock that such a lookup holds.
    pub(crate) looking: tokio::sync::Mutex<()>,
    servers: RwLock<HashMap<McpServerId, Arc<Entry>>>,
    pub(crate) changes: Changes,
}

/// Counters of the changes of each project's servers: one is new, gone, or in another state.
#[derive(Default)]
pub(crate) struct Changes(Mutex<HashMap<ProjectId, watch::Sender<u64>>>);

/// One server that this process drives.
pub(crate) struct Entry {
    pub(crate) id: McpServerId,
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    pub(crate) guest: Guest,
    pub(crate) gate: watch::Sender<Gate>,
    /// Notified when the sandbox may have ended.
    pub(crate) doubt: Arc<Notify>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Cancelled when another server of the installation has taken the MCP server over.
    pub(crate) let_go: CancellationToken,
    /// Cancelled when the server is to be deleted, or this process begins to stop: an installation that is under way is
    /// given up, and nobody waits for the server any more.
    pub(crate) unwanted: CancellationToken,
    /// The time that a plain call, or the head of an HTTP-based server's answer, may take, in milliseconds.
    call_timeout_ms: AtomicU64,
    standing: watch::Sender<ServerStatus>,
    changes: watch::Sender<u64>,
    endpoint: Mutex<Option<Arc<Endpoint>>>,
    silence: Mutex<Silence>,
}

/// The state of a server, its explanation, and the time of the next try where the server does not run.
#[derive(Debug, Clone)]
pub(crate) struct ServerStatus {
    pub(crate) state: McpServerState,
    pub(crate) message: Option<String>,
    pub(crate) next_try: Option<Instant>,
}

/// The signs by which a server counts as unresponsive.
#[derive(Debug, Default)]
struct Silence {
    /// The number of calls in a row that ran out of time while nothing was answered.
    calls: u32,
    /// The time at which a call last ran out of time.
    last: Option<Instant>,
    /// The time at which an HTTP-based server last answered; a bridge keeps that itself.
    answered: Option<Instant>,
}

/// The endpoint of a server: a bridge to its standard input and output, or a proxy to its port.
pub(crate) enum Endpoint {
    Bridge(Bridge),
    Proxy(Proxy),
}

/// A request to a driver.
pub(crate) enum Command {
    /// Start the server afresh.
    Restart(Reply),
    /// Bring the server to the state that its row describes.
    Update(Reply),
    /// Remove the server.
    Delete(Reply),
}

pub(crate) type Reply = oneshot::Sender<Result<(), HostingError>>;

// === impl Inner ===

impl Inner {
    pub(crate) fn new(
        config: HostingConfig,
        store: Store,
        provider: Option<Arc<dyn Provider>>,
        workspaces: Workspaces,
        budget: Budget,
    ) -> Self {
        Self {
            config,
            budget,
            store,
            provider,
            ownership: workspaces.servers().changes_of_ownership(),
            looked: AtomicU64::new(0),
            looking: tokio::sync::Mutex::default(),
            workspaces,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            going_down: CancellationToken::new(),
            servers: RwLock::default(),
            changes: Changes::default(),
        }
    }

    pub(crate) fn get(&self, id: McpServerId) -> Option<Arc<Entry>> {
        self.servers.read().get(&id).cloned()
    }

    /// The server that a text names by its id or its name, where this process drives it.
    pub(crate) fn given(&self, project: ProjectId, given: &str) -> Option<Arc<Entry>> {
        let id: Option<McpServerId> = given.parse().ok();
        let servers = self.servers.read();
        let mut own = servers.values().filter(|entry| entry.project == project);
        own.find(|entry| id.map_or(entry.name == given, |id| entry.id == id)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.servers.read().values().cloned().collect()
    }

    pub(crate) fn remove(&self, id: McpServerId) {
        let removed = self.servers.write().remove(&id);
        if let Some(entry) = removed {
            entry.changes.send_modify(|count| *count += 1);
        }
    }

    /// Makes the entry of a server, with the receiver of its commands; `None` where the server has an entry already.
    pub(crate) fn enter(&self, row: &McpServerRow) -> Option<(Arc<Entry>, mpsc::Receiver<Command>)> {
        let id = row.id;
        let doubt = Arc::new(Notify::new());
        let doubted = Arc::clone(&doubt);
        let guest = guest_of(self.provider.clone(), id.sandbox(), None, move || doubted.notify_one());
        let (commands, receiver) = mpsc::channel(16);
        let entry = Arc::new(Entry {
            id,
            project: row.project,
            name: row.name.clone(),
            guest,
            gate: watch::Sender::new(Gate::Opening),
            doubt,
            commands,
            let_go: CancellationToken::new(),
            call_timeout_ms: AtomicU64::new(row.spec.call_timeout_ms),
            standing: watch::Sender::new(ServerStatus {
                state: row.state,
                message: row.message.clone(),
                next_try: None,
            }),
            changes: self.changes.of(row.project),
            unwanted: self.stopping.child_token(),
            endpoint: Mutex::default(),
            silence: Mutex::default(),
        });
        match self.servers.write().entry(id) {
            hash_map::Entry::Occupied(_) => return None,
            hash_map::Entry::Vacant(place) => drop(place.insert(Arc::clone(&entry))),
        }
        entry.changes.send_modify(|count| *count += 1);
        Some((entry, receiver))
    }
}

impl StepObserver for Inner {
    fn created(&self, _: SandboxId, step: CreateStep) {
        self.pass(step.name());
    }

    fn destroyed(&self, _: SandboxId, step: DestroyStep) {
        self.pass(step.name());
    }

    fn snapshot_taken(&self, _: SnapshotId, _: SnapshotStep) {}

    fn pulling(&self, workspace: SandboxId, progress: PullProgress) {
        if let Some(entry) = self.get(workspace.into()) {
            let PullProgress { bytes, total_bytes, status } = progress;
            entry.explain_start(Some(format!("pulling its image: {status} {bytes} of {total_bytes}")));
        }
    }
}

impl Inner {
    /// Tells that an operation has passed a step; the process kills itself here if a test has set this step as its
    /// fault.
    pub(crate) fn pass(&self, step: &'static str) {
        if let Some(fault) = self.config.fault {
            fault.strike(step);
        }
    }
}

// === impl Changes ===

impl Changes {
    /// The counter of one project. Counters that nobody has any more are forgotten.
    pub(crate) fn of(&self, project: ProjectId) -> watch::Sender<u64> {
        let mut all = self.0.lock();
        all.retain(|_, counter| counter.sender_count() > 1 || counter.receiver_count() > 0);
        all.entry(project).or_default().clone()
    }
}

// === impl Entry ===

impl Entry {
    /// Sends a command to the driver.
    pub(crate) async fn send(&self, command: Command) -> Result<(), HostingError> {
        self.commands.send(command).await.map_err(|_: mpsc::error::SendError<_>| HostingError::NotFound)
    }

    /// The server's state and its explanation.
    pub(crate) fn state(&self) -> (McpServerState, Option<String>) {
        let standing = self.standing.borrow();
        (standing.state, standing.sentence())
    }

    /// Waits until the server is no longer starting, or is not wanted any more, at most for `at_most`.
    pub(crate) async fn wait_ready(&self, at_most: Duration) {
        let mut standing = self.standing.subscribe();
        // Whether it settles or the time is up, it is seen as it is.
        let settled = standing.wait_for(|standing| standing.state != McpServerState::Starting);
        let _ = timeout(at_most, self.unwanted.run_until_cancelled(settled)).await;
    }

    /// The endpoint that takes the server's requests, once the server is no longer starting.
    pub(crate) async fn ready(&self, at_most: Duration) -> Result<Arc<Endpoint>, HostingError> {
        self.wait_ready(at_most).await;
        let (state, message) = self.state();
        match (state, self.endpoint()) {
            // Sessions go on that have a process.
            (
                McpServerState::Running
                | McpServerState::Failing
                | McpServerState::BackingOff
                | McpServerState::Stopped,
                Some(endpoint),
            ) => Ok(endpoint),
            _ => Err(HostingError::NotRunning { state, message }),
        }
    }

    /// The error that the server takes no calls. The state's explanation goes before `reason`: it alone says whether
    /// another try has a chance.
    pub(crate) fn not_running(&self, reason: String) -> HostingError {
        let (state, message) = self.state();
        HostingError::NotRunning { state, message: message.or(Some(reason)) }
    }

    /// Sets the server's state in memory; its row is written separately.
    pub(crate) fn say(&self, standing: ServerStatus) {
        let state = standing.state;
        if self.standing.send_replace(standing).state != state {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Says what a server that is starting waits for; one that is to be deleted meanwhile stays so.
    pub(crate) fn explain_start(&self, message: Option<String>) {
        self.standing.send_if_modified(|standing| {
            let is_starting = standing.state == McpServerState::Starting;
            if is_starting {
                standing.message = message;
            }
            is_starting
        });
    }

    /// Returns the time that a plain call, or the head of an HTTP-based server's answer, may take.
    pub(crate) fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_call_timeout(&self, milliseconds: u64) {
        self.call_timeout_ms.store(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.lock().clone()
    }

    pub(crate) fn set_endpoint(&self, endpoint: Option<Arc<Endpoint>>) {
        *self.endpoint.lock() = endpoint;
    }

    /// Counts a call that has run out of time; `silent` says that nothing was answered meanwhile. Returns whether the
    /// server counts as unresponsive from now on.
    pub(crate) fn timed_out(&self, silent: bool) -> bool {
        let answered = self.answered();
        let mut silence = self.silence();
        if !silent || answered > silence.last {
            silence.calls = 0;
        }
        silence.calls += u32::from(silent);
        silence.last = Some(Instant::now());
        silent && silence.calls == UNRESPONSIVE
    }

    /// Notes that an HTTP-based server has answered.
    pub(crate) fn note_answer(&self) {
        self.silence().answered = Some(Instant::now());
    }

    /// Forgets the silent calls, because the server was started again.
    pub(crate) fn forget_silence(&self) {
        *self.silence() = Silence::default();
    }

    /// Whether several calls in a row ran out of time, and nothing was answered since.
    pub(crate) fn is_unresponsive(&self) -> bool {
        let answered = self.answered();
        let silence = self.silence();
        silence.calls >= UNRESPONSIVE && answered < silence.last
    }

    /// The time at which the server last answered a request.
    fn answered(&self) -> Option<Instant> {
        let of_bridge = self.endpoint().and_then(|endpoint| match &*endpoint {
            Endpoint::Bridge(bridge) => bridge.status().answered,
            Endpoint::Proxy(_) => None,
        });
        of_bridge.max(self.silence().answered)
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock()
    }
}

// === impl ServerStatus ===

impl ServerStatus {
    pub(crate) fn of(state: McpServerState, message: Option<String>) -> Self {
        Self { state, message, next_try: None }
    }

    /// The sentence that explains the state, with the time until the next try.
    fn sentence(&self) -> Option<String> {
        let message = self.message.as_ref()?;
        Some(match self.next_try {
            Some(at) => {
                let seconds = at.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                format!("{message}; next try in {seconds} s")
            }
            None => message.clone(),
        })
    }
}
