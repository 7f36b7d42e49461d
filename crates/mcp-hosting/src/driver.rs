//! The one task that changes a server: brings it up, sees it crash, and does what its owner asks for.
//!
//! ```text
//!            brought up                   crash
//!   Down ────────────────► Up ───────────────────► Up | Waiting | Resting
//!    ▲  └── fails ──► Waiting ── time is up ──► Down
//!    └──────────── restart, update ◄── any ──► delete: gone
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use emergent_mcp::{
    Bridge, BridgeConfig, BridgeEvent, CallError, Child, Era, Exit, Launcher as _, OUTPUT_KEPT, Sharing,
};
use emergent_provider::{DestroyStep, EngineState, ExitReason};
use emergent_store::{McpServerExit, McpServerRow, McpServerState};
use tokio::{
    sync::{broadcast, mpsc},
    time::sleep_until,
};

use crate::{
    HostingError,
    error::chain,
    inner::{Command, Endpoint, Entry, Inner, Reply},
    launcher::{Gate, GuestLauncher, Program},
    policy::{History, Next},
    proxy::Proxy,
    sandbox::MakeError,
    session_key::SessionKey,
    step::HostStep,
};

/// How long a server's processes have to end when they are told to.
const GRACE: Duration = Duration::from_secs(30);
/// How long the next attempt to bring a server up waits, after the first, second … failure.
const RETRY: [u64; 5] = [5, 15, 45, 120, 300];
/// How long a server may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(60);
/// Where an HTTP server's endpoint is when nobody says otherwise.
const DEFAULT_PATH: &str = "/mcp";
/// What is said of a server whose sandbox was ended for its files, and is not started again by itself.
const OVER_DISK_LIMIT: &str =
    "its files take more than its disk limit, and its sandbox was ended; raise `resource_limits.disk`, or remove it";
const HOST_DISK_FULL: &str = "it wrote while the host's disk was nearly full (WORKSPACE_DISK_RESERVE), and its sandbox was \
    ended; restart it when there is room";

pub(crate) struct Driver {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    commands: mpsc::Receiver<Command>,
    notes: mpsc::UnboundedReceiver<Note>,
    noting: mpsc::UnboundedSender<Note>,
    events: Option<broadcast::Receiver<BridgeEvent>>,
    history: History,
    phase: Phase,
    failures: usize,
    /// The process of an HTTP server.
    process: Option<Box<dyn Child>>,
}

enum Phase {
    Down,
    Up,
    Waiting(Instant),
    /// Until somebody asks for it.
    Resting,
}

/// What a driver's own helpers tell it.
enum Note {
    StartFailed(String),
    Ended(Exit),
}

enum Event {
    Command(Command),
    Bridge(BridgeEvent),
    Note(Note),
    Doubt,
    Wake,
    GoingDown,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(inner: Arc<Inner>, entry: Arc<Entry>, commands: mpsc::Receiver<Command>) -> Self {
        let (noting, notes) = mpsc::unbounded_channel();
        Self {
            inner,
            entry,
            commands,
            notes,
            noting,
            events: None,
            history: History::default(),
            phase: Phase::Down,
            failures: 0,
            process: None,
        }
    }

    /// Drives the server until it is deleted, the service goes down, or another server has taken it over; then its sandbox
    /// runs on.
    pub(crate) async fn run(mut self) {
        match self.entry.state().0 {
            McpServerState::Deleting => {
                if let Err(error) = self.delete().await {
                    tracing::warn!(server = %self.entry.id, reason = chain(&error), "a server could not be deleted yet");
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
                        tracing::debug!(server = %self.entry.id, reason = chain(&error), "not stopped before its restart");
                    }
                    self.afresh(reply).await;
                }
                Event::Command(Command::Update(reply)) => {
                    self.end().await;
                    self.afresh(reply).await;
                }
                Event::Bridge(event) => self.on_bridge(event).await,
                Event::Note(Note::StartFailed(reason)) => {
                    let exit = McpServerExit {
                        code: None,
                        signal: None,
                        reason: Some(reason),
                        stderr: String::new(),
                        at: Utc::now(),
                    };
                    self.on_crash(exit, false).await;
                }
                Event::Note(Note::Ended(exit)) => self.on_exit(exit).await,
                Event::Doubt => self.look().await,
                Event::Wake if self.entry.state().0 == McpServerState::Deleting => match self.delete().await {
                    Ok(()) => return,
                    Err(_) => self.phase = Phase::Waiting(Instant::now() + Duration::from_secs(RETRY[1])),
                },
                Event::Wake => self.bring_up().await,
            }
        }
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
                Phase::Down | Phase::Up | Phase::Resting => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.inner.going_down.cancelled() => Event::GoingDown,
            () = self.entry.let_go.cancelled() => Event::GoingDown,
            command = self.commands.recv() => command.map_or(Event::GoingDown, Event::Command),
            event = of_bridge(&mut self.events) => Event::Bridge(event),
            Some(note) = self.notes.recv() => Event::Note(note),
            () = self.entry.doubt.notified() => Event::Doubt,
            () = wake => Event::Wake,
        }
    }

    /// Brings the server up from wherever it is, and answers when it runs or is known not to.
    async fn afresh(&mut self, reply: Reply) {
        self.history.forget();
        self.failures = 0;
        self.bring_up().await;
        answer(reply, Ok(()));
    }

    /// Brings the server up, or notes when that is tried again.
    async fn bring_up(&mut self) {
        self.entry.gate.send_replace(Gate::Opening);
        self.say(McpServerState::Starting, None).await;
        match self.try_bring_up().await {
            Ok(()) => {
                self.failures = 0;
                self.phase = Phase::Up;
                self.entry.responds();
                self.history.started(Instant::now());
                self.entry.gate.send_replace(Gate::Open);
                self.say(McpServerState::Running, None).await;
                self.inner.pass(HostStep::RunningRecorded.name());
                self.warm_up().await;
            }
            Err(error) => {
                let seconds = RETRY[self.failures.min(RETRY.len() - 1)];
                self.failures += 1;
                let message = format!("{}; tried again in {seconds} s", chain(&error));
                tracing::warn!(server = %self.entry.id, message, "an MCP server could not be started");
                self.close(message.clone());
                self.say(McpServerState::Failed, Some(message)).await;
                self.phase = Phase::Waiting(Instant::now() + Duration::from_secs(seconds));
            }
        }
    }

    async fn try_bring_up(&mut self) -> Result<(), MakeError> {
        self.inner.workspaces.may_act().await?;
        let row = self.row().await?;
        let was_current = row.made_revision == Some(row.revision);
        self.inner.ensure_sandbox(&self.entry, &row).await?;
        if self.entry.endpoint().is_some() {
            return Ok(());
        }
        let (argv, workdir) = self.inner.command(&row).await?;
        let program = Program {
            argv,
            workdir,
            environment: self.inner.environment(&row)?,
            as_root: row.spec.run_as_root,
            buffer: OUTPUT_KEPT as u64,
            silent: !row.spec.stdio_bridge,
        };
        let (failures, mut failed) = mpsc::unbounded_channel();
        let noting = self.noting.clone();
        tokio::spawn(async move {
            while let Some(reason) = failed.recv().await {
                if noting.send(Note::StartFailed(reason)).is_err() {
                    return;
                }
            }
        });
        let launcher =
            GuestLauncher { guest: self.entry.guest.clone(), program, gate: self.entry.gate.subscribe(), failures };
        let endpoint = if row.spec.stdio_bridge {
            let era = row.era.as_deref().filter(|_| was_current).and_then(era_of);
            let bridge = Bridge::start(Arc::new(launcher), self.bridge_config(&row, era)).await?;
            self.events = Some(bridge.events());
            Endpoint::Bridge(bridge)
        } else {
            let sessions = self.begin_process(launcher).await?;
            let path = row.spec.path.clone().unwrap_or_else(|| DEFAULT_PATH.to_owned());
            let patience = Duration::from_millis(row.spec.call_timeout_ms);
            let (guest, limit) = (self.entry.guest.clone(), self.inner.config.body_limit);
            Endpoint::Proxy(Proxy::new(guest, row.spec.port.unwrap_or_default(), path, limit, patience, sessions))
        };
        self.entry.set_endpoint(Some(Arc::new(endpoint)));
        self.inner.pass(HostStep::EndpointOpened.name());
        Ok(())
    }

    fn bridge_config(&self, row: &McpServerRow, era: Option<Era>) -> BridgeConfig {
        let config = &self.inner.config;
        BridgeConfig {
            sharing: if row.spec.shared { Sharing::Shared } else { Sharing::PerSession },
            max_sessions: config.max_sessions,
            idle_after: config.idle_after,
            body_limit: config.body_limit,
            grace: GRACE,
            allowed_hosts: config.allowed_hosts.clone(),
            allowed_origins: config.allowed_hosts.clone().map(|hosts| {
                let with = |scheme: &'static str| {
                    hosts.iter().map(move |host| format!("{scheme}://{host}")).collect::<Vec<_>>()
                };
                [with("http"), with("https")].concat()
            }),
            era,
            ..BridgeConfig::default()
        }
    }

    /// Finds the process of an HTTP server, or starts it; answers what its sessions are bound with.
    async fn begin_process(&mut self, launcher: GuestLauncher) -> Result<SessionKey, MakeError> {
        let found = launcher.adopt().await?.into_iter().next();
        let kept = found.as_ref().and_then(|process| SessionKey::of(&process.note()));
        let sessions = kept.map_or_else(SessionKey::generate, Ok)?;
        let process = match found {
            Some(process) => process,
            None => {
                self.entry.gate.send_replace(Gate::Open);
                launcher.launch(sessions.note()?).await?
            }
        };
        let (noting, id) = (self.noting.clone(), process.id().clone());
        // A second handle on the same process: the first one is the driver's, to end it with.
        let guest = self.entry.guest.clone();
        tokio::spawn(async move {
            let exit = crate::launcher::watch_for_end(&guest, &id).await;
            // Nobody may be listening any more.
            let _ = noting.send(Note::Ended(exit));
        });
        self.process = Some(process);
        Ok(sessions)
    }

    /// Makes sure that the process of a server that shares one, or answers plain calls, is there, so that the first call
    /// finds it warm and a crash at the start is seen.
    async fn warm_up(&mut self) {
        let Some(endpoint) = self.entry.endpoint() else { return };
        if let Endpoint::Bridge(_) = &*endpoint {
            let entry = Arc::clone(&self.entry);
            self.inner.tasks.spawn(async move {
                // An answer that says no is an answer, too.
                if let Endpoint::Bridge(bridge) = &*endpoint
                    && let Err(error) = bridge.call("ping", None, FIRST_ANSWER).await
                    && !matches!(error, CallError::Rpc { .. })
                {
                    tracing::info!(server = %entry.id, reason = chain(&error), "an MCP server did not answer at its start");
                }
            });
        } else if self.process.is_none() {
            // It ended; a new endpoint starts a new one.
            self.entry.set_endpoint(None);
            if let Err(error) = self.try_bring_up().await {
                tracing::warn!(server = %self.entry.id, reason = chain(&error), "an MCP server could not be started");
            }
        }
    }

    async fn on_bridge(&mut self, event: BridgeEvent) {
        match event {
            BridgeEvent::Crashed { child, exit } => {
                tracing::info!(server = %self.entry.id, %child, %exit, "a process of an MCP server has ended");
                self.on_exit(exit).await;
            }
            BridgeEvent::TimedOut { child, method } => {
                tracing::info!(server = %self.entry.id, %child, method, "a call to an MCP server has timed out");
                if self.entry.timed_out() {
                    tracing::warn!(server = %self.entry.id, "an MCP server does not respond; it is not restarted");
                }
            }
            BridgeEvent::Era(era) => {
                let recorded = self.inner.store.mcp_servers_record_era(self.entry.id, word_of(era)).await;
                recorded.unwrap_or_else(|error| tracing::warn!(reason = chain(&error), "an era was not recorded"));
            }
            BridgeEvent::Rubbish { child } => {
                tracing::info!(server = %self.entry.id, %child, "an MCP server writes what is no message on its output");
            }
            BridgeEvent::Started { .. } | BridgeEvent::Ended { .. } => {}
        }
    }

    async fn on_exit(&mut self, exit: Exit) {
        self.process = None;
        if exit.code.is_none() && exit.signal.is_none() {
            // Its whole sandbox has ended, which says more.
            return self.look().await;
        }
        let clean = exit.code == Some(0);
        let Exit { code, signal, stderr } = exit;
        self.on_crash(McpServerExit { code, signal, reason: None, stderr, at: Utc::now() }, clean).await;
    }

    /// Looks at the sandbox, which may have ended.
    async fn look(&mut self) {
        if !matches!(self.phase, Phase::Up) {
            return;
        }
        let Ok(provider) = self.inner.provider() else { return };
        let state = match provider.inspect(self.entry.id.sandbox()).await {
            Ok(observed) => observed.map(|observed| observed.state),
            Err(error) => {
                tracing::debug!(server = %self.entry.id, reason = chain(&error), "a sandbox could not be looked at");
                return;
            }
        };
        let (code, reason) = match state {
            Some(EngineState::Running) => return,
            Some(EngineState::Exited(ExitReason::OutOfMemory)) => (None, "it used more memory than its limit"),
            Some(EngineState::Exited(ExitReason::ProcessLimit)) => (None, "it started more processes than it may have"),
            Some(EngineState::Exited(ExitReason::DiskLimit)) => return self.rest(OVER_DISK_LIMIT).await,
            Some(EngineState::Exited(ExitReason::HostDisk)) => return self.rest(HOST_DISK_FULL).await,
            Some(EngineState::Exited(ExitReason::Code(code))) => (i32::try_from(code).ok(), "its sandbox was ended"),
            Some(EngineState::Paused) => (None, "its sandbox was frozen"),
            Some(EngineState::Created | EngineState::Remains) | None => (None, "its sandbox was removed"),
        };
        self.phase = Phase::Down;
        let exit = McpServerExit {
            code,
            signal: None,
            reason: Some(reason.to_owned()),
            stderr: String::new(),
            at: Utc::now(),
        };
        self.on_crash(exit, false).await;
    }

    /// Leaves a server as it is whose sandbox was ended, since it would only be ended again.
    async fn rest(&mut self, why: &'static str) {
        tracing::warn!(server = %self.entry.id, why, "an MCP server is left as it is");
        self.close(why.to_owned());
        self.say(McpServerState::Failed, Some(why.to_owned())).await;
        self.phase = Phase::Resting;
    }

    /// A process, or the whole sandbox, has ended by itself.
    async fn on_crash(&mut self, exit: McpServerExit, clean: bool) {
        let Ok(row) = self.row().await else { return };
        let next = self.history.ended(Instant::now(), row.spec.restart_policy, clean);
        let is_down = matches!(self.phase, Phase::Down);
        let how = describe(&exit);
        let restarted = matches!(next, Next::Restart | Next::RestartAfter(_));
        // How a sandbox ended says more than how its processes did.
        if next != Next::Nothing || is_down {
            let recorded = self.inner.store.mcp_servers_record_exit(self.entry.id, &exit, restarted).await;
            recorded.unwrap_or_else(|error| tracing::warn!(reason = chain(&error), "an exit was not recorded"));
        }
        match next {
            Next::Nothing if is_down => self.bring_up().await,
            Next::Nothing => {}
            Next::Restart => {
                tracing::info!(server = %self.entry.id, how, "an MCP server has ended and is started again");
                self.history.started(Instant::now());
                if is_down { self.bring_up().await } else { self.warm_up().await }
            }
            Next::RestartAfter(after) => {
                let message = format!("it keeps ending ({how}), and is started again in {} s", after.as_secs());
                tracing::warn!(server = %self.entry.id, message, "an MCP server crashes too often");
                self.close(message.clone());
                self.say(McpServerState::BackingOff, Some(message)).await;
                self.phase = Phase::Waiting(Instant::now() + after);
            }
            Next::Stay => {
                let message = format!("it has ended ({how}), and its restart policy leaves it so; restart it");
                self.close(message.clone());
                self.say(McpServerState::Stopped, Some(message)).await;
                self.phase = Phase::Resting;
            }
        }
    }

    /// Ends the server's processes in order, and takes its endpoint away.
    async fn end(&mut self) {
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
        // What is told of from before does not count against what comes.
        while self.notes.try_recv().is_ok() {}
        self.phase = Phase::Down;
        self.inner.pass(HostStep::ProcessesEnded.name());
    }

    /// Removes the server with all that it has.
    async fn delete(&mut self) -> Result<(), HostingError> {
        self.inner.workspaces.may_act().await?;
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
        let recorded = self.inner.store.mcp_servers_record(self.entry.id, state, message.as_deref()).await;
        recorded.unwrap_or_else(|error| tracing::warn!(reason = chain(&error), "a server's state was not recorded"));
        self.entry.say(state, message);
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

/// How something ended, in a few words.
fn describe(exit: &McpServerExit) -> String {
    match (exit.code, exit.signal, &exit.reason) {
        (_, _, Some(reason)) => reason.clone(),
        (_, Some(signal), None) => format!("signal {signal}"),
        (Some(code), None, None) => format!("exit code {code}"),
        (None, None, None) => "for no reason that is known".to_owned(),
    }
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
