//! The one task that changes a server: it brings the server up, sees its crashes, and does what the owner asks for.
//!
//! ```text
//!            sandbox made            first answer            ends
//!   Down ──────────────────► Starting ───────────► Up ───────────────┐
//!    ▲  └─ fails ─┐             └── none ──┐        ▲                │
//!    │            ▼                        ▼        └── at once ─────┤
//!    └────────────────────────────────── Waiting ◄─── later ─────────┤
//!    └── restart, update ◄── any ──► delete: gone     Resting ◄──────┘
//! ```
//!
//! `start` brings the server up and asks for the first answer; `crash` decides what the end of a process means.

mod crash;
mod start;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_mcp::{BridgeEvent, CallError, Child, ChildId, Era, Exit};
use emergent_store::{McpServerRow, McpServerState};
use emergent_types::{DestroyStep, error_chain};
use tokio::{
    sync::{broadcast, mpsc},
    task::AbortHandle,
    time::sleep_until,
};

use crate::{
    HostingError,
    inner::{Command, Endpoint, Entry, Inner, Reply, ServerStatus},
    launcher::Gate,
    restart_policy::History,
    sandbox::MakeError,
    step::HostStep,
};

/// The time that a server's processes have to end when they are told to.
const GRACE: Duration = Duration::from_secs(30);
/// The pauses, in seconds, after the first, second … failure to make a server's sandbox, or to remove it.
const RETRY: [u64; 5] = [5, 15, 45, 120, 300];

pub(crate) struct Driver {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::UnboundedReceiver<TaskReport>,
    reporting: mpsc::UnboundedSender<TaskReport>,
    events: Option<broadcast::Receiver<BridgeEvent>>,
    history: History,
    phase: Phase,
    /// The number of times in a row that the sandbox could not be made.
    failures: usize,
    /// The time at which the sandbox was last brought up.
    brought_up: Instant,
    /// Whether the server has answered since then.
    was_ready: bool,
    /// The start time of each process; processes that are not here were found running.
    born: HashMap<ChildId, Instant>,
    /// The task that asks whether the server answers; `asked` is the number of its question.
    asking: Option<AbortHandle>,
    asked: u64,
    /// The end of a process before the question was answered.
    ended_early: Option<Exit>,
    /// The process of an HTTP-based server.
    process: Option<Box<dyn Child>>,
}

enum Phase {
    Down,
    /// The sandbox is there; whether the program answers is not known yet.
    Starting,
    Up,
    Waiting(Instant),
    /// The server stays as it is until a command comes.
    Resting,
}

/// The reports that a driver gets from its own tasks.
enum TaskReport {
    /// A program could not be started.
    StartFailed(String),
    /// The answer to the question whether the server answers.
    Answered { asked: u64, answer: Result<(), CallError> },
    /// The process of an HTTP-based server has ended.
    Ended { process: ChildId, exit: Exit },
}

enum Event {
    Command(Command),
    Bridge(BridgeEvent),
    Report(TaskReport),
    Doubt,
    Wake,
    GoingDown,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(inner: Arc<Inner>, entry: Arc<Entry>, commands: mpsc::Receiver<Command>) -> Self {
        let (reporting, reports) = mpsc::unbounded_channel();
        Self {
            inner,
            entry,
            commands,
            reports,
            reporting,
            events: None,
            history: History::default(),
            phase: Phase::Down,
            failures: 0,
            brought_up: Instant::now(),
            was_ready: false,
            born: HashMap::new(),
            asking: None,
            asked: 0,
            ended_early: None,
            process: None,
        }
    }

    /// Drives the server until it is deleted, the service goes down, or another server of the installation has taken it
    /// over. In the last two cases its sandbox runs on.
    pub(crate) async fn run(mut self) {
        match self.entry.state().0 {
            McpServerState::Deleting => {
                if let Err(error) = self.delete().await {
                    tracing::warn!(server = %self.entry.id, reason = error_chain(&error), "a server could not be deleted yet");
                    self.phase = Phase::Waiting(Instant::now() + Duration::from_secs(RETRY[0]));
                } else {
                    return;
                }
            }
            McpServerState::Stopped => {
                let (_, message) = self.entry.state();
                self.close(message.unwrap_or_else(|| "it has ended".to_owned()));
                self.phase = Phase::Resting;
            }
            McpServerState::Starting
            | McpServerState::Running
            | McpServerState::Failing
            | McpServerState::BackingOff
            | McpServerState::Failed => self.bring_up().await,
        }
        loop {
            match self.next().await {
                Event::GoingDown => break,
                Event::Command(Command::Delete(reply)) => {
                    let deleted = self.delete().await;
                    let is_gone = deleted.is_ok();
                    answer(reply, deleted);
                    if is_gone {
                        return;
                    }
                    self.phase = Phase::Waiting(Instant::now() + Duration::from_secs(RETRY[0]));
                }
                Event::Command(Command::Restart(reply)) => {
                    self.end().await;
                    let stopped = match self.inner.provider() {
                        Ok(provider) => provider.stop(self.entry.id.sandbox()).await,
                        Err(_) => Ok(()),
                    };
                    self.inner.pass(HostStep::SandboxStopped.name());
                    if let Err(error) = stopped {
                        tracing::debug!(server = %self.entry.id, reason = error_chain(&error), "not stopped before its restart");
                    }
                    self.afresh(reply).await;
                }
                Event::Command(Command::Update(reply)) => {
                    self.end().await;
                    self.afresh(reply).await;
                }
                Event::Bridge(event) => self.on_bridge(event).await,
                Event::Report(report) => self.on_report(report).await,
                Event::Doubt => self.look().await,
                Event::Wake if self.entry.state().0 == McpServerState::Deleting => match self.delete().await {
                    Ok(()) => return,
                    Err(_) => self.phase = Phase::Waiting(Instant::now() + Duration::from_secs(RETRY[1])),
                },
                Event::Wake => self.bring_up().await,
            }
        }
        self.stop_asking();
        if let Some(endpoint) = self.entry.endpoint()
            && let Endpoint::Bridge(bridge) = &*endpoint
        {
            bridge.detach().await;
        }
    }

    async fn next(&mut self) -> Event {
        let wake = async {
            match self.phase {
                Phase::Waiting(until) => sleep_until(until.into()).await,
                Phase::Down | Phase::Starting | Phase::Up | Phase::Resting => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.inner.going_down.cancelled() => Event::GoingDown,
            () = self.entry.let_go.cancelled() => Event::GoingDown,
            command = self.commands.recv() => command.map_or(Event::GoingDown, Event::Command),
            event = of_bridge(&mut self.events) => Event::Bridge(event),
            Some(report) = self.reports.recv() => Event::Report(report),
            () = self.entry.doubt.notified() => Event::Doubt,
            () = wake => Event::Wake,
        }
    }

    /// Forgets earlier crashes, brings the server's sandbox up from any state, and replies when that is done or has
    /// failed.
    async fn afresh(&mut self, reply: Reply) {
        self.history.forget();
        self.failures = 0;
        self.bring_up().await;
        answer(reply, Ok(()));
    }

    /// Ends the server's processes in order, and takes its endpoint away.
    async fn end(&mut self) {
        self.stop_asking();
        self.close("it is being restarted".to_owned());
        if let Some(endpoint) = self.entry.endpoint() {
            match &*endpoint {
                Endpoint::Bridge(bridge) => bridge.shut_down(GRACE).await,
                Endpoint::Proxy(proxy) => proxy.end(),
            }
        }
        if let Some(process) = self.process.take() {
            process.end(GRACE).await;
        }
        self.entry.set_endpoint(None);
        self.events = None;
        self.born.clear();
        // What is told of from before does not count against what comes.
        while self.reports.try_recv().is_ok() {}
        self.phase = Phase::Down;
        self.inner.pass(HostStep::ProcessesEnded.name());
    }

    /// Removes the server with all that it has.
    async fn delete(&mut self) -> Result<(), HostingError> {
        self.inner.workspaces.servers().ensure_lease().await?;
        if let Some(row) = self.inner.store.mcp_servers_find(self.entry.id).await?
            && row.server != self.inner.store.server_id()
        {
            return Err(HostingError::Elsewhere);
        }
        self.end().await;
        if let Ok(provider) = self.inner.provider() {
            let destroyed = provider.destroy(self.entry.id.sandbox(), &*self.inner).await;
            destroyed.map_err(|source| HostingError::Engine { operation: "remove", source })?;
        }
        self.inner.store.mcp_servers_forget(self.entry.id).await?;
        self.inner.pass(DestroyStep::DestroyedRecorded.name());
        self.entry.guest.close();
        self.inner.remove(self.entry.id);
        tracing::info!(server = %self.entry.id, "an MCP server is deleted");
        Ok(())
    }

    fn close(&self, reason: String) {
        self.entry.gate.send_replace(Gate::Closed(reason));
    }

    async fn say(&self, state: McpServerState, message: Option<String>) {
        self.tell(ServerStatus::of(state, message)).await;
    }

    /// Records that the server does not run, and sets the next try for `after` from now.
    async fn wait(&mut self, state: McpServerState, message: String, after: Duration) {
        self.close(message.clone());
        let due = Instant::now() + after;
        self.tell(ServerStatus { state, message: Some(message), next_try: Some(due.into()) }).await;
        self.phase = Phase::Waiting(due);
    }

    async fn tell(&self, standing: ServerStatus) {
        let (state, message) = (standing.state, standing.message.as_deref());
        let recorded = self.inner.store.mcp_servers_record(self.entry.id, state, message).await;
        recorded
            .unwrap_or_else(|error| tracing::warn!(reason = error_chain(&error), "a server's state was not recorded"));
        self.entry.say(standing);
    }

    async fn row(&self) -> Result<McpServerRow, MakeError> {
        let row = self.inner.store.mcp_servers_find(self.entry.id).await?;
        let row = row.ok_or(MakeError::Ended)?;
        if row.server == self.inner.store.server_id() { Ok(row) } else { Err(MakeError::Elsewhere) }
    }
}

async fn of_bridge(events: &mut Option<broadcast::Receiver<BridgeEvent>>) -> BridgeEvent {
    loop {
        let Some(receiver) = events else { std::future::pending().await };
        match receiver.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => *events = None,
        }
    }
}

fn answer(reply: Reply, result: Result<(), HostingError>) {
    // A caller that went away does not wait for it.
    let _ = reply.send(result);
}

fn word_of(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    }
}

fn era_of(word: &str) -> Option<Era> {
    [Era::Legacy, Era::Modern].into_iter().find(|era| word_of(*era) == word)
}
