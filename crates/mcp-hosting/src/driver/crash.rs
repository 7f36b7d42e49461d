//! The driver's reaction to the end of a process, or of the whole sandbox.

use std::time::Instant;

use chrono::Utc;
use emergent_mcp::{BridgeEvent, CallError, ChildId, Exit, LaunchError};
use emergent_provider::{EngineState, ExitReason};
use emergent_store::{McpServerExit, McpServerState, RestartPolicy};
use emergent_types::error_chain;

use super::{Driver, GRACE, Phase, TaskReport, word_of};
use crate::{inner::Endpoint, restart_policy::Next, sandbox::MakeError};

/// The number of last bytes of standard error that are kept of a server that was not ready in time.
const STDERR_TAIL: usize = 8 * 1024;

/// The hint for a server that was not ready in time and wrote nothing on its standard error.
const SILENT: &str = "its program has said nothing; if it fetches itself first, as npx and uvx do, it may be waiting for its \
     package index: `emergent mcp add` with --npm or --pypi installs a package before, and says why it cannot";

/// The message of a server whose sandbox was ended for its files, and which is not started again by itself.
const OVER_DISK_LIMIT: &str = "its files take more than its disk limit or have too many names, and its sandbox was ended; raise \
     `resource_limits.disk`, or remove it";
const HOST_DISK_FULL: &str = "it wrote while the host's disk was nearly full (WORKSPACE_DISK_RESERVE), and its sandbox was \
    ended; restart it when there is room";

/// The way in which a sandbox has ended.
enum SandboxEnd {
    /// The sandbox ended by itself, or somebody else ended it.
    ByItself(McpServerExit),
    /// We ended the sandbox for its files; a new start would only be ended again.
    ForItsFiles(&'static str),
}

// === impl Driver ===

impl Driver {
    pub(super) async fn on_bridge(&mut self, event: BridgeEvent) {
        match event {
            BridgeEvent::Started { child } => {
                self.born.insert(child, Instant::now());
            }
            BridgeEvent::Ended { child, .. } => {
                self.born.remove(&child);
            }
            BridgeEvent::Crashed { child, exit } => {
                tracing::info!(server = %self.entry.id, %child, %exit, "a process of an MCP server has ended");
                self.on_exit(&child, exit).await;
            }
            BridgeEvent::TimedOut { child, method, silent } => {
                tracing::info!(server = %self.entry.id, %child, method, "a call to an MCP server has timed out");
                if self.entry.timed_out(silent) {
                    tracing::warn!(server = %self.entry.id, "an MCP server does not respond; it is not restarted");
                }
            }
            BridgeEvent::Era(era) => {
                let recorded = self.inner.store.mcp_servers_record_era(self.entry.id, word_of(era)).await;
                recorded
                    .unwrap_or_else(|error| tracing::warn!(reason = error_chain(&error), "an era was not recorded"));
            }
            BridgeEvent::Rubbish { child } => {
                tracing::info!(server = %self.entry.id, %child, "an MCP server writes what is no message on its output");
            }
        }
    }

    pub(super) async fn on_report(&mut self, report: TaskReport) {
        match report {
            // Whether a server that is being started does start is told by the answer to the question.
            TaskReport::StartFailed(reason) if matches!(self.phase, Phase::Up) => {
                let now = Instant::now();
                self.on_crash(exit_for(reason), now, false).await;
            }
            TaskReport::StartFailed(_) => {}
            TaskReport::Answered { asked, answer } if asked == self.asked => {
                self.asking = None;
                match answer {
                    Ok(()) => self.on_answer().await,
                    Err(error) => self.on_no_answer(error).await,
                }
            }
            TaskReport::Ended { process, exit } if self.process.as_ref().is_some_and(|own| *own.id() == process) => {
                // A new endpoint starts a new one.
                self.process = None;
                self.entry.set_endpoint(None);
                self.on_exit(&process, exit).await;
            }
            // Of one that is not wanted any more.
            TaskReport::Answered { .. } | TaskReport::Ended { .. } => {}
        }
    }

    /// Handles the news that the server answers.
    async fn on_answer(&mut self) {
        let is_http = self.entry.endpoint().is_some_and(|endpoint| matches!(&*endpoint, Endpoint::Proxy(_)));
        match self.phase {
            Phase::Starting if is_http || self.has_processes() => self.is_up().await,
            // It answered, and ended.
            Phase::Starting => {
                self.phase = Phase::Up;
                let exit = self.ended_early.take().unwrap_or_default();
                self.ended(exit, Instant::now()).await;
            }
            Phase::Up => self.history.started(Instant::now()),
            Phase::Down | Phase::Waiting(_) | Phase::Resting => {}
        }
    }

    /// Handles a server that does not answer and has no process: finds out why, and acts on that.
    async fn on_no_answer(&mut self, error: CallError) {
        let (exit, clean) = match error {
            CallError::Exited(Exit { code: None, signal: None, .. })
            | CallError::Launch(LaunchError::Unavailable { .. }) => {
                // Its sandbox may have ended, which says more.
                match self.end_of_sandbox().await {
                    Some(end) => return self.on_sandbox_ended(end).await,
                    None => (exit_for(error.to_string()), false),
                }
            }
            CallError::Exited(exit) => {
                let clean = exit.code == Some(0);
                (exit_of(exit), clean)
            }
            CallError::Launch(LaunchError::Start { reason }) => (exit_for(reason), false),
            CallError::NotReady { reason } => {
                let stderr = self.last_words().await;
                let reason = if stderr.trim().is_empty() { format!("{reason}; {SILENT}") } else { reason };
                (McpServerExit { stderr, ..exit_for(reason) }, false)
            }
            error => (exit_for(error.to_string()), false),
        };
        self.on_not_ready(exit, clean).await;
    }

    /// Handles a program that could not even be started.
    pub(super) async fn on_start_failed(&mut self, reason: String) {
        self.on_not_ready(exit_for(reason), false).await;
    }

    /// Handles a server that ended, or was given up, before it was ready.
    async fn on_not_ready(&mut self, exit: McpServerExit, clean: bool) {
        self.stop_asking();
        let Some(policy) = self.policy().await else { return };
        let next = self.history.not_ready(Instant::now(), policy, clean);
        let how = describe(&exit);
        self.record(&exit, next != Next::Stay).await;
        let message = if exit.reason.is_some() { how } else { format!("{how} before it was ready") };
        match next {
            Next::RestartAfter(after) => {
                tracing::warn!(server = %self.entry.id, message, ?after, "an MCP server does not get ready");
                self.wait(McpServerState::Failing, message, after).await;
            }
            Next::Stay | Next::Nothing | Next::Restart => self.rest(&message).await,
        }
        if let Some(process) = self.process.take() {
            self.entry.set_endpoint(None);
            process.end(GRACE).await;
        }
    }

    /// Handles a process that has ended by itself.
    async fn on_exit(&mut self, process: &ChildId, exit: Exit) {
        let born = self.born.remove(process).unwrap_or(self.brought_up);
        match self.phase {
            Phase::Up => self.ended(exit, born).await,
            Phase::Starting if self.entry.endpoint().is_none() => {
                // An HTTP-based server's only one.
                self.on_no_answer(CallError::Exited(exit)).await;
            }
            // What became of the others is told by the answer to the question.
            Phase::Starting => self.ended_early = Some(exit),
            Phase::Down | Phase::Waiting(_) | Phase::Resting => {}
        }
    }

    async fn ended(&mut self, exit: Exit, born: Instant) {
        if exit.code.is_none()
            && exit.signal.is_none()
            && let Some(end) = self.end_of_sandbox().await
        {
            // Its whole sandbox has ended, which says more.
            return self.on_sandbox_ended(end).await;
        }
        let clean = exit.code == Some(0);
        self.on_crash(exit_of(exit), born, clean).await;
    }

    /// Looks at the sandbox, which may have ended.
    pub(super) async fn look(&mut self) {
        if !matches!(self.phase, Phase::Starting | Phase::Up) {
            return;
        }
        if let Some(end) = self.end_of_sandbox().await {
            self.on_sandbox_ended(end).await;
        }
    }

    async fn on_sandbox_ended(&mut self, end: SandboxEnd) {
        self.stop_asking();
        self.phase = Phase::Down;
        let exit = match end {
            SandboxEnd::ByItself(exit) => exit,
            SandboxEnd::ForItsFiles(why) => {
                tracing::warn!(server = %self.entry.id, why, "an MCP server is left as it is");
                self.close(why.to_owned());
                self.say(McpServerState::Failed, Some(why.to_owned())).await;
                self.phase = Phase::Resting;
                return;
            }
        };
        if self.was_ready {
            self.on_crash(exit, self.brought_up, false).await;
        } else {
            self.on_not_ready(exit, false).await;
        }
    }

    /// The way in which the sandbox ended; `None` while it runs, or if that cannot be found out.
    async fn end_of_sandbox(&self) -> Option<SandboxEnd> {
        let provider = self.inner.provider().ok()?;
        let state = match provider.inspect(self.entry.id.sandbox()).await {
            Ok(observed) => observed.map(|observed| observed.state),
            Err(error) => {
                tracing::debug!(server = %self.entry.id, reason = error_chain(&error), "a sandbox could not be looked at");
                return None;
            }
        };
        let (code, reason) = match state {
            Some(EngineState::Running) => return None,
            Some(EngineState::Exited(ExitReason::OutOfMemory)) => (None, "it used more memory than its limit"),
            Some(EngineState::Exited(ExitReason::ProcessLimit)) => (None, "it started more processes than it may have"),
            Some(EngineState::Exited(ExitReason::DiskLimit)) => return Some(SandboxEnd::ForItsFiles(OVER_DISK_LIMIT)),
            Some(EngineState::Exited(ExitReason::HostDisk)) => return Some(SandboxEnd::ForItsFiles(HOST_DISK_FULL)),
            Some(EngineState::Exited(ExitReason::Code(code))) => (i32::try_from(code).ok(), "its sandbox was ended"),
            Some(EngineState::Paused) => (None, "its sandbox was frozen"),
            Some(EngineState::Created | EngineState::Remains) | None => (None, "its sandbox was removed"),
        };
        Some(SandboxEnd::ByItself(McpServerExit { code, ..exit_for(reason.to_owned()) }))
    }

    /// Handles the end, by itself, of a process that was started at `born`, or of the whole sandbox.
    async fn on_crash(&mut self, exit: McpServerExit, born: Instant, clean: bool) {
        let Some(policy) = self.policy().await else { return };
        let next = self.history.ended(Instant::now(), born, policy, clean);
        let is_down = matches!(self.phase, Phase::Down) || self.entry.endpoint().is_none();
        let how = describe(&exit);
        // How a sandbox ended says more than how its processes did.
        if next != Next::Nothing || is_down {
            self.record(&exit, matches!(next, Next::Restart | Next::RestartAfter(_))).await;
        }
        match next {
            Next::Nothing | Next::Restart if is_down => self.bring_up().await,
            Next::Nothing | Next::Restart => {
                tracing::info!(server = %self.entry.id, how, "an MCP server has ended and is started again");
                if !self.has_processes() {
                    self.phase = Phase::Starting;
                    let message = format!("it has ended ({how}), and is started again");
                    self.say(McpServerState::Starting, Some(message)).await;
                }
                self.ask();
            }
            Next::RestartAfter(after) => {
                let message = format!("it keeps ending ({how})");
                tracing::warn!(server = %self.entry.id, message, ?after, "an MCP server crashes too often");
                self.stop_asking();
                self.wait(McpServerState::BackingOff, message, after).await;
            }
            Next::Stay => {
                self.stop_asking();
                self.rest(&format!("it has ended ({how})")).await;
            }
        }
    }

    /// Leaves the server stopped, as its restart policy says.
    async fn rest(&mut self, message: &str) {
        let message = format!("{message}, and its restart policy leaves it so; restart it");
        self.close(message.clone());
        self.say(McpServerState::Stopped, Some(message)).await;
        self.phase = Phase::Resting;
    }

    /// The server's restart policy; `None` if the server is not ours to start any more.
    async fn policy(&self) -> Option<RestartPolicy> {
        match self.row().await {
            Ok(row) => Some(row.spec.restart_policy),
            // It is tried again rather than forgotten while the store is away.
            Err(MakeError::Store(_)) => Some(RestartPolicy::Always),
            Err(_) => None,
        }
    }

    async fn record(&self, exit: &McpServerExit, restarted: bool) {
        let recorded = self.inner.store.mcp_servers_record_exit(self.entry.id, exit, restarted).await;
        recorded.unwrap_or_else(|error| tracing::warn!(reason = error_chain(&error), "an exit was not recorded"));
    }

    /// The end of the standard error of the server's last process.
    async fn last_words(&self) -> String {
        let Ok(found) = self.entry.guest.children().await else { return String::new() };
        let Some(last) = found.children.last() else { return String::new() };
        let from = last.stderr_end.saturating_sub(STDERR_TAIL as u64);
        let said = self.entry.guest.child_errors(&last.child_id, from).await;
        said.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Describes an end in a few words.
fn describe(exit: &McpServerExit) -> String {
    match (exit.code, exit.signal, &exit.reason) {
        (_, _, Some(reason)) => reason.clone(),
        (_, Some(signal), None) => format!("ended by signal {signal}"),
        (Some(code), None, None) => format!("exited with {code}"),
        (None, None, None) => "ended for no reason that is known".to_owned(),
    }
}

fn exit_of(exit: Exit) -> McpServerExit {
    let Exit { code, signal, stderr } = exit;
    McpServerExit { code, signal, reason: None, stderr, at: Utc::now() }
}

/// An end with this reason.
fn exit_for(reason: String) -> McpServerExit {
    McpServerExit { code: None, signal: None, reason: Some(reason), stderr: String::new(), at: Utc::now() }
}
