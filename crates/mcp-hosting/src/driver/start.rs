//! Bringing a server up, and asking whether it answers.

use emergent_types::error_chain;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_mcp::{Bridge, BridgeConfig, CallError, Era, LaunchError, Launcher as _, OUTPUT_KEPT, Sharing};
use emergent_store::{McpServerRow, McpServerState};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Driver, GRACE, Phase, RETRY, TaskReport, era_of};
use crate::{
    inner::{Endpoint, Entry},
    launcher::{Gate, GuestLauncher, Program, watch_for_end},
    proxy::Proxy,
    sandbox::MakeError,
    session_key::SessionKey,
    step::HostStep,
};

/// The time that an HTTP-based server may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// The pause before the port is tried again.
const LISTENS_AGAIN: Duration = Duration::from_millis(200);
/// The path of an HTTP-based server's endpoint, unless its row names another.
const DEFAULT_PATH: &str = "/mcp";

// === impl Driver ===

impl Driver {
    /// Brings the server's sandbox up and begins to ask whether its program answers; on failure, sets the next try.
    pub(super) async fn bring_up(&mut self) {
        self.stop_asking();
        self.entry.gate.send_replace(Gate::Opening);
        self.say(McpServerState::Starting, None).await;
        match self.try_bring_up().await {
            Ok(()) => {
                self.failures = 0;
                self.brought_up = Instant::now();
                self.was_ready = false;
                self.entry.forget_silence();
                self.entry.gate.send_replace(Gate::Open);
                self.phase = Phase::Starting;
                if self.has_processes() {
                    // They were found, and had answered before.
                    self.is_up().await;
                }
                self.ask();
            }
            // The reason comes as the next event: a command, or the end of the service.
            Err(MakeError::GivenUp) => self.phase = Phase::Resting,
            Err(MakeError::Launch(LaunchError::Start { reason })) => {
                self.phase = Phase::Starting;
                self.on_start_failed(reason).await;
            }
            Err(error) => {
                let seconds = RETRY[self.failures.min(RETRY.len() - 1)];
                self.failures += 1;
                let message = error_chain(&error);
                tracing::warn!(server = %self.entry.id, message, seconds, "an MCP server's sandbox could not be made");
                self.wait(McpServerState::Failed, message, Duration::from_secs(seconds)).await;
            }
        }
    }

    /// Marks the server as running: it takes calls from now on.
    pub(super) async fn is_up(&mut self) {
        self.phase = Phase::Up;
        self.was_ready = true;
        self.history.started(Instant::now());
        self.say(McpServerState::Running, None).await;
        self.inner.pass(HostStep::RunningRecorded.name());
    }

    /// Whether a stdio server has processes; `false` for an HTTP-based server, which may not listen yet.
    pub(super) fn has_processes(&self) -> bool {
        self.entry.endpoint().is_some_and(|endpoint| match &*endpoint {
            Endpoint::Bridge(bridge) => !bridge.status().children.is_empty(),
            // It may not listen yet.
            Endpoint::Proxy(_) => false,
        })
    }

    /// Begins to ask whether the server answers. A stdio server gets the protocol's first question, in the process of
    /// plain calls, which is then there when the first call comes; an HTTP-based one gets a connection to its port.
    pub(super) fn ask(&mut self) {
        self.stop_asking();
        let Some(endpoint) = self.entry.endpoint() else { return };
        let (asked, entry, reporting) = (self.asked, Arc::clone(&self.entry), self.reporting.clone());
        let asking = self.inner.tasks.spawn(async move {
            let answer = match &*endpoint {
                Endpoint::Bridge(bridge) => bridge.warm_up().await,
                Endpoint::Proxy(proxy) => listens(&entry, proxy.port()).await,
            };
            // The driver may be gone.
            let _ = reporting.send(TaskReport::Answered { asked, answer });
        });
        self.asking = Some(asking.abort_handle());
    }

    /// Stops waiting for the answer to an earlier question.
    pub(super) fn stop_asking(&mut self) {
        self.asked += 1;
        self.ended_early = None;
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
    }

    async fn try_bring_up(&mut self) -> Result<(), MakeError> {
        self.inner.workspaces.servers().ensure_lease().await?;
        let row = self.row().await?;
        self.entry.set_call_timeout(row.spec.call_timeout_ms);
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
        let reporting = self.reporting.clone();
        tokio::spawn(async move {
            while let Some(reason) = failed.recv().await {
                if reporting.send(TaskReport::StartFailed(reason)).is_err() {
                    return;
                }
            }
        });
        let launcher =
            GuestLauncher { guest: self.entry.guest.clone(), program, gate: self.entry.gate.subscribe(), failures };
        let endpoint = if row.spec.stdio_bridge {
            let era = row.era.as_deref().and_then(era_of);
            let bridge = Bridge::start(Arc::new(launcher), self.bridge_config(&row, era)).await?;
            self.events = Some(bridge.events());
            Endpoint::Bridge(bridge)
        } else {
            let sessions = self.begin_process(launcher).await?;
            let path = row.spec.path.clone().unwrap_or_else(|| DEFAULT_PATH.to_owned());
            let (guest, limit) = (self.entry.guest.clone(), self.inner.config.body_limit);
            Endpoint::Proxy(Proxy::new(guest, row.spec.port.unwrap_or_default(), path, limit, sessions))
        };
        self.entry.set_endpoint(Some(Arc::new(endpoint)));
        self.inner.pass(HostStep::EndpointOpened.name());
        Ok(())
    }

    fn bridge_config(&self, row: &McpServerRow, era: Option<Era>) -> BridgeConfig {
        let config = &self.inner.config;
        let account = self.inner.budget.account();
        account.belongs_to(row.project.as_uuid().as_u128());
        BridgeConfig {
            account: Some(account),
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

    /// Finds the process of an HTTP-based server, or starts it; returns the key that binds its sessions to callers.
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
        let (reporting, id) = (self.reporting.clone(), process.id().clone());
        // A second handle on the same process: the first one is the driver's, to end it with.
        let guest = self.entry.guest.clone();
        tokio::spawn(async move {
            let exit = watch_for_end(&guest, &id).await;
            // Nobody may be listening any more.
            let _ = reporting.send(TaskReport::Ended { process: id, exit });
        });
        self.process = Some(process);
        Ok(sessions)
    }
}

/// Waits until something listens on a port inside the sandbox.
async fn listens(entry: &Entry, port: u16) -> Result<(), CallError> {
    let listening = async {
        while entry.guest.tunnel(port).await.is_err() {
            sleep(LISTENS_AGAIN).await;
        }
    };
    let seconds = LISTENS_WITHIN.as_secs();
    timeout(LISTENS_WITHIN, listening).await.map_err(|_| CallError::NotReady {
        reason: format!("nothing listens on port {port} inside after {seconds} s; `port` says which it is"),
    })
}
