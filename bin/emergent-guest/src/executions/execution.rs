//! One execution, from its start to long after its end.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use emergent_guest_proto::{
    Execution, ExecutionId, ExecutionState, GuestError, GuestPath, Outcome, RunAs, Stream, execution::Program,
};
use parking_lot::Mutex;
use tokio::{net::unix::pipe, sync::watch};

use super::logs::{Logs, index, paths};
use crate::process::{reaper::Exit, signal, tree::Family};

/// How much of a command is remembered, in characters.
const COMMAND_LIMIT: usize = 1_000;

/// The variable that tells a command which execution it belongs to.
pub const ID_VARIABLE: &str = "EMERGENT_EXECUTION_ID";

/// An execution that the guest knows.
#[derive(Debug)]
pub struct Run {
    /// The execution's id.
    pub id: ExecutionId,
    /// The command, cut.
    pub command: String,
    /// The user that the command runs as.
    pub user: RunAs,
    /// Marks its processes; none after a restart of the guest, when they are gone.
    pub group_tag: Option<u32>,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// The execution's state.
    pub state: watch::Sender<State>,
    /// Set to end it early; says how it will have ended.
    pub stop: watch::Sender<Option<Outcome>>,
    /// The process's standard input, while it is open.
    pub stdin: tokio::sync::Mutex<Option<pipe::Sender>>,
    started: Instant,
    pid: AtomicU32,
    logs: Mutex<Option<Arc<Logs>>>,
    written: [AtomicU64; 2],
    dropped: [AtomicU64; 2],
}

/// The state of an execution: `Starting → Running → Ended`, or `Starting → Failed`.
#[derive(Debug, Clone)]
pub enum State {
    /// The execution's process is being made.
    Starting,
    /// The execution's process runs.
    Running,
    /// The execution's process is gone.
    Ended(Ending),
    /// The execution's process could not be made.
    Failed(GuestError),
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ending {
    /// By itself, or by whom.
    pub outcome: Outcome,
    /// The exit code.
    pub exit_code: Option<i32>,
    /// The signal's name.
    pub signal: Option<String>,
    /// Wall-clock time.
    pub duration_ms: u64,
    /// The reason for which the execution was lost.
    pub reason: Option<String>,
    /// Bytes written to standard output and error.
    pub written: [u64; 2],
    /// Bytes at their beginnings that are no longer kept.
    #[serde(default)]
    pub dropped: [u64; 2],
}

impl Run {
    /// An execution whose process is about to be made.
    pub fn starting(id: ExecutionId, program: &Program, user: RunAs, group_tag: Option<u32>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_at_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let command = match program {
            Program::Shell(command) => command.clone(),
            Program::Argv(argv) => argv.join(" "),
        };
        let command = command.chars().take(COMMAND_LIMIT).collect();
        Self::new(id, command, user, group_tag, started_at_ms, State::Starting)
    }

    /// An execution that had ended before the guest started.
    pub fn remembered(id: ExecutionId, command: String, pid: u32, started_at_ms: u64, ending: Ending) -> Self {
        let Ending { written, dropped, .. } = ending;
        let run = Self::new(id, command, RunAs::Agent, None, started_at_ms, State::Ended(ending));
        run.pid.store(pid, Ordering::Relaxed);
        Self { written: written.map(AtomicU64::new), dropped: dropped.map(AtomicU64::new), ..run }
    }

    fn new(
        id: ExecutionId,
        command: String,
        user: RunAs,
        group_tag: Option<u32>,
        started_at_ms: u64,
        state: State,
    ) -> Self {
        Self {
            id,
            command,
            user,
            group_tag,
            started_at_ms,
            state: watch::Sender::new(state),
            stop: watch::Sender::new(None),
            stdin: tokio::sync::Mutex::default(),
            started: Instant::now(),
            pid: AtomicU32::new(0),
            logs: Mutex::default(),
            written: Default::default(),
            dropped: Default::default(),
        }
    }

    /// Notes that the process runs and where its output goes.
    pub fn running(&self, pid: i32, logs: Arc<Logs>) {
        self.pid.store(pid.unsigned_abs(), Ordering::Relaxed);
        *self.logs.lock() = Some(logs);
        self.state.send_replace(State::Running);
    }

    /// Notes that the process is gone. `exit` is absent when nobody knows how.
    pub fn ended(&self, outcome: Outcome, exit: Option<Exit>, reason: Option<String>) -> Ending {
        let logs = self.logs.lock().take();
        if let Some(logs) = logs {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.written[index(stream)].store(logs.size(stream), Ordering::Relaxed);
            }
        }
        let (exit_code, signal) = match exit {
            Some(Exit::Code(code)) => (Some(code), None),
            Some(Exit::Signal(number)) => (Some(128 + number), Some(signal::name(number))),
            None => (None, None),
        };
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let [written, dropped] = [&self.written, &self.dropped].map(|counts| counts.each_ref().map(load));
        let ending = Ending { outcome, exit_code, signal, duration_ms, reason, written, dropped };
        self.state.send_replace(State::Ended(ending.clone()));
        ending
    }

    /// The process id of the first process; 0 while it is being made.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        match &*self.state.borrow() {
            State::Ended(ending) => Some(ending.clone()),
            State::Starting | State::Running | State::Failed(_) => None,
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Why its process could not be made.
    pub async fn wait(&self) -> Result<Ending, GuestError> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Ended(ending) => return Ok(ending.clone()),
                State::Failed(error) => return Err(error.clone()),
                State::Starting | State::Running => {}
            }
            // `self` owns the sender, so that it cannot be gone.
            let _ = state.changed().await;
        }
    }

    /// The features that the execution's processes have in common.
    pub fn family(&self) -> Family {
        let alive = matches!(*self.state.borrow(), State::Starting | State::Running);
        let variable = (self.user == RunAs::Root).then(|| format!("{ID_VARIABLE}={}", self.id));
        let leader = i32::try_from(self.pid()).ok().filter(|pid| alive && *pid > 0);
        Family { leader, group_tag: self.group_tag, variable }
    }

    /// The open output files, while it runs.
    pub fn open_logs(&self) -> Option<Arc<Logs>> {
        self.logs.lock().clone()
    }

    /// Bytes at the beginning of a stream that are no longer kept.
    pub fn dropped(&self, stream: Stream) -> u64 {
        load(&self.dropped[index(stream)])
    }

    /// Notes that the bytes of a stream before `offset` are no longer kept.
    pub fn drop_before(&self, stream: Stream, offset: u64) {
        self.dropped[index(stream)].fetch_max(offset, Ordering::Relaxed);
    }

    /// For one remembered from before: takes the sizes from the files. A lost execution never noted them.
    pub fn take_sizes(&mut self, directory: &Path) {
        let lost = self.ending().is_some_and(|ending| ending.outcome == Outcome::Lost);
        if let (true, Some(logs)) = (lost, Logs::open(directory, &self.id)) {
            let written = [Stream::Stdout, Stream::Stderr].map(|stream| logs.size(stream));
            self.written = written.map(AtomicU64::new);
            self.state.send_modify(|state| {
                if let State::Ended(ending) = state {
                    ending.written = written;
                }
            });
        }
    }

    /// For a lost one: gives another reason for that. Returns how it has ended then.
    pub fn lost_because(&self, reason: &str) -> Option<Ending> {
        self.state.send_modify(|state| match state {
            State::Ended(ending) if ending.outcome == Outcome::Lost => ending.reason = Some(reason.to_owned()),
            State::Ended(_) | State::Starting | State::Running | State::Failed(_) => {}
        });
        self.ending()
    }

    /// Bytes written to a stream: so far while it runs, until its end afterwards.
    pub fn written(&self, stream: Stream) -> u64 {
        match self.open_logs() {
            Some(logs) => logs.size(stream),
            None => load(&self.written[index(stream)]),
        }
    }

    /// Describes the execution for callers. `directory` is where output is kept.
    pub fn describe(&self, directory: &Path) -> Execution {
        let state = match &*self.state.borrow() {
            State::Starting | State::Running | State::Failed(_) => ExecutionState::Running,
            State::Ended(ending) => ExecutionState::Ended {
                outcome: ending.outcome.clone(),
                exit_code: ending.exit_code,
                signal: ending.signal.clone(),
                duration_ms: ending.duration_ms,
                reason: ending.reason.clone(),
            },
        };
        let [stdout_file, stderr_file] = paths(directory, &self.id);
        Execution {
            execution_id: self.id.clone(),
            command: self.command.clone(),
            pid: self.pid(),
            started_at_ms: self.started_at_ms,
            state,
            stdout_bytes: self.written(Stream::Stdout),
            stderr_bytes: self.written(Stream::Stderr),
            dropped_bytes: self.dropped(Stream::Stdout) + self.dropped(Stream::Stderr),
            stdout_file: GuestPath::from(stdout_file.as_path()),
            stderr_file: GuestPath::from(stderr_file.as_path()),
        }
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
