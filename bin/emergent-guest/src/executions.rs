//! Executions: commands whose output outlives the caller's connection.
//!
//! A call that starts one only asks; a task of the guest's own makes the process, watches its time limit and notes its
//! end, so that a caller that vanishes changes nothing.

pub mod budget;
pub mod execution;
pub mod follow;
pub mod journal;
pub mod logs;
pub mod summary;
mod supervise;
mod table;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use emergent_guest_proto::{
    ErrorCode, ExecutionId, GuestError, KILL_GRACE_MS, MAX_TIMEOUT_MS, Outcome, RunAs, Stream, execution::Program,
    tools::BashResult,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::pipe::PipeFlags;
use tokio::{net::unix::pipe, sync::oneshot};

use self::{
    execution::{ID_VARIABLE, Run, State},
    journal::{Journal, Line, Remembered, Started},
    logs::Logs,
    table::Table,
};
use crate::{
    credentials,
    failure::invalid,
    own_files,
    process::{
        launch::{self, Launch, Launcher},
        reaper::Exit,
    },
    random::random_name,
};

/// The names of what executions keep in the state directory: the journal, and their output.
pub const STATE: [&str; 2] = [emergent_guest_proto::EXECUTIONS_FILE, "output"];

/// The time that a killed process may take to be gone before it is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// The time during which, and the interval at which, making a process is retried at the workspace's limit on processes.
const LIMIT_PATIENCE: Duration = Duration::from_secs(2);
const LIMIT_RETRY: Duration = Duration::from_millis(50);

/// The interval between checks of the budget while something runs.
const BUDGET_INTERVAL: Duration = Duration::from_secs(1);

/// All executions of the workspace.
#[derive(Debug)]
pub struct Executions {
    launcher: Launcher,
    directory: PathBuf,
    budget: u64,
    journal: Journal,
    /// Those that ran when the earlier guest ended.
    lost: Vec<Arc<Run>>,
    table: Mutex<Table>,
    /// Held by whoever cuts or removes files of executions that have ended: meanwhile no id is given away, so that its
    /// files are no other execution's.
    cleaning: Mutex<()>,
}

/// The order for an execution.
#[derive(Debug)]
pub struct Order {
    /// Chosen by the caller.
    pub id: Option<ExecutionId>,
    /// The program.
    pub program: Program,
    /// The directory that the program runs in.
    pub workdir: PathBuf,
    /// Added to the environment.
    pub variables: BTreeMap<String, String>,
    /// Ends it after so many milliseconds.
    pub timeout_ms: Option<u64>,
    /// The user that the command runs as.
    pub user: RunAs,
    /// Keep standard input open.
    pub stdin: bool,
}

impl Executions {
    /// Takes up what an earlier guest left in `state_dir`.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn open(state_dir: &Path, launcher: Launcher, budget: u64) -> io::Result<Arc<Self>> {
        let [journal, output] = STATE.map(|name| state_dir.join(name));
        let directory = output;
        let (journal, Remembered { mut runs, lost }) = Journal::open(&journal)?;
        for run in &mut runs {
            run.take_sizes(&directory);
        }
        let table = Table::of(runs);
        remove_strangers(&directory, &table)?;
        let lost = lost.iter().filter_map(|id| table.get(id)).collect();
        Ok(Arc::new(Self {
            launcher,
            directory,
            budget,
            journal,
            lost,
            table: Mutex::new(table),
            cleaning: Mutex::default(),
        }))
    }

    /// Returns the directory in which output is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes processes.
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// Starts an execution, and returns when its program runs.
    ///
    /// # Errors
    /// Orders that are invalid, `execution_exists`, and processes that could not be made.
    pub async fn start(self: &Arc<Self>, order: Order) -> Result<Arc<Run>, GuestError> {
        launch::check(&order.program, &order.variables)?;
        if order.timeout_ms.is_some_and(|timeout| !(1..=MAX_TIMEOUT_MS).contains(&timeout)) {
            return Err(invalid(
                "timeout_ms",
                format!("the time limit must be from 1 to {MAX_TIMEOUT_MS} milliseconds"),
            ));
        }
        let id = order.id.clone().map_or_else(new_id, Ok)?;
        let run = Arc::new(Run::starting(id, &order.program, order.user, self.launcher.group_tags.next()));
        self.table().insert(Arc::clone(&run))?;
        // A task of its own, so that it is finished also when the caller vanishes.
        let made = tokio::spawn(Arc::clone(self).make(Arc::clone(&run), Arc::new(order))).await;
        made.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))??;
        Ok(run)
    }

    /// The execution of this id.
    ///
    /// # Errors
    /// `unknown_execution`.
    pub fn get(&self, id: &ExecutionId) -> Result<Arc<Run>, GuestError> {
        self.table().get(id).ok_or_else(|| {
            let message = format!("no execution has the id {id}; it never started, or it is too long ago");
            GuestError::new(ErrorCode::UnknownExecution, message)
        })
    }

    /// All executions, newest first.
    pub fn list(&self) -> Vec<Arc<Run>> {
        self.table().newest_first()
    }

    /// Waits for the end of an execution and shows its output.
    ///
    /// # Errors
    /// Why its process could not be made.
    pub async fn wait(&self, run: &Arc<Run>) -> Result<BashResult, GuestError> {
        // The files stay open from before the end, so that the common case opens nothing.
        let logs = run.open_logs();
        let ending = run.wait().await?;
        let (run, directory) = (Arc::clone(run), self.directory.clone());
        match logs {
            // At most 100 KiB that were written just now: not worth a thread.
            Some(logs) => Ok(summary::summarize(&run, ending, Some(&logs), &directory)),
            None => {
                credentials::blocking(move || {
                    let logs = Logs::open(&directory, &run.id);
                    Ok(summary::summarize(&run, ending, logs.as_ref(), &directory))
                })
                .await
            }
        }
    }

    /// Ends an execution with all its processes; also those that outlived its shell.
    ///
    /// # Errors
    /// Why its process could not be made.
    pub async fn cancel(&self, run: &Run) -> Result<(), GuestError> {
        run.stop.send_if_modified(|stop| stop.is_none() && stop.replace(Outcome::Cancelled).is_none());
        run.wait().await?;
        if !run.family().terminate(Duration::from_millis(KILL_GRACE_MS)).await {
            let message = format!("not every process of {} could be ended", run.id);
            return Err(GuestError::new(ErrorCode::Internal, message));
        }
        Ok(())
    }

    /// Sends a signal to the process group of an execution.
    ///
    /// # Errors
    /// `not_running` when it has ended.
    pub fn signal(&self, run: &Run, number: i32) -> Result<(), GuestError> {
        let sent = i32::try_from(run.pid()).map(|pid| self.launcher.reaper.signal_group(pid, number));
        match sent {
            Ok(Ok(true)) => Ok(()),
            Ok(Err(error)) => Err(GuestError::new(ErrorCode::Internal, format!("the signal was not sent: {error}"))),
            Ok(Ok(false)) | Err(_) => Err(not_running(run)),
        }
    }

    /// Ends every execution and waits for that: first by SIGTERM, then by SIGKILL.
    pub async fn shut_down(&self) {
        let running: Vec<_> = self.list().into_iter().filter(|run| run.ending().is_none()).collect();
        for run in &running {
            run.stop.send_replace(Some(Outcome::Lost));
        }
        for run in running {
            let _ = run.wait().await;
        }
    }

    /// Notes why the earlier guest ended, as the reason of the executions that were lost with it.
    pub fn explain_lost(&self, reason: &str) {
        for run in &self.lost {
            if let Some(ending) = run.lost_because(reason) {
                self.journal.write(Line::Ended { id: run.id.clone(), ending });
            }
        }
    }

    /// Returns the reason why executions may not be recorded; `None` while they are recorded.
    pub fn problem(&self) -> Option<String> {
        self.journal.problem()
    }

    /// Waits until the journal has everything. Blocks.
    pub fn flush(&self) {
        self.journal.flush();
    }

    /// Keeps output within its budget, for ever.
    pub async fn keep_budget(self: Arc<Self>) {
        let mut interval = tokio::time::interval(BUDGET_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let executions = Arc::clone(&self);
            let enforced = credentials::blocking(move || {
                let _cleaning = executions.cleaning();
                let mut runs = executions.list();
                runs.reverse();
                budget::enforce(&executions.directory, &runs, executions.budget, &executions.journal);
                Ok(())
            });
            let _ = enforced.await;
        }
    }

    /// Makes the process of an execution. At the limit on processes it waits a little: often many short commands run,
    /// and some end soon.
    async fn make(self: Arc<Self>, run: Arc<Run>, order: Arc<Order>) -> Result<(), GuestError> {
        let deadline = Instant::now() + LIMIT_PATIENCE;
        let made = loop {
            let (executions, starting, wanted) = (Arc::clone(&self), Arc::clone(&run), Arc::clone(&order));
            let made = credentials::blocking(move || executions.try_make(&starting, &wanted)).await;
            match made {
                Err(error) if error.code == ErrorCode::ResourceLimit && Instant::now() < deadline => {
                    tokio::time::sleep(LIMIT_RETRY).await;
                }
                made => break made,
            }
        };
        match made {
            Ok(exit) => {
                self.journal.write(Line::Started(Started {
                    id: run.id.clone(),
                    command: run.command.clone(),
                    pid: run.pid(),
                    started_at_ms: run.started_at_ms,
                }));
                let timeout = order.timeout_ms.map(Duration::from_millis);
                tokio::spawn(self.supervise(run, exit, timeout));
                Ok(())
            }
            Err(error) => {
                self.remove_files(&run.id);
                self.table().remove(&run.id);
                run.state.send_replace(State::Failed(error.clone()));
                Err(error)
            }
        }
    }

    /// Blocks until the process runs its program.
    fn try_make(&self, run: &Run, order: &Order) -> Result<oneshot::Receiver<Exit>, GuestError> {
        let io_failed = |error: io::Error| {
            let message = format!("the execution cannot be set up: {error}");
            GuestError::new(crate::failure::code_of(&error), message)
        };
        let logs = Logs::create(&self.directory, &run.id, order.user).map_err(io_failed)?;
        let (stdin, writer) = standard_input(order.stdin).map_err(io_failed)?;
        let mut variables = order.variables.clone();
        variables.insert(ID_VARIABLE.into(), run.id.to_string());
        let (pid, exit) = self.launcher.launch(&Launch {
            program: &order.program,
            workdir: &order.workdir,
            variables: &variables,
            user: order.user,
            group_tag: run.group_tag,
            stdio: [std::os::fd::AsFd::as_fd(&stdin), logs.as_fd(Stream::Stdout), logs.as_fd(Stream::Stderr)],
        })?;
        if let (Some(writer), Ok(mut slot)) = (writer, run.stdin.try_lock()) {
            *slot = Some(writer);
        }
        run.running(pid, Arc::new(logs));
        Ok(exit)
    }

    /// Removes what is left of executions, and only then gives their ids away. Blocks.
    fn forget(&self, forgotten: Vec<ExecutionId>) {
        let _cleaning = self.cleaning();
        for id in forgotten {
            self.remove_files(&id);
            self.journal.write(Line::Forgotten { id: id.clone() });
            self.table().free(&id);
        }
    }

    fn remove_files(&self, id: &ExecutionId) {
        for path in logs::paths(&self.directory, id) {
            // The budget may have removed it before.
            let _ = fs::remove_file(path);
        }
    }

    fn cleaning(&self) -> MutexGuard<'_, ()> {
        self.cleaning.lock()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

/// The error of a call that needs a running execution.
pub fn not_running(run: &Run) -> GuestError {
    GuestError::new(ErrorCode::NotRunning, format!("the execution {} has ended", run.id))
}

fn new_id() -> Result<ExecutionId, GuestError> {
    let drawn = random_name().map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))?;
    ExecutionId::new(drawn).map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))
}

/// `/dev/null`, or a pipe and the end that writes to it.
fn standard_input(open: bool) -> io::Result<(std::os::fd::OwnedFd, Option<pipe::Sender>)> {
    if !open {
        return Ok((File::open("/dev/null")?.into(), None));
    }
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((reader, Some(pipe::Sender::from_owned_fd(writer)?)))
}

/// Removes the output of executions that the journal does not know.
fn remove_strangers(directory: &Path, table: &Table) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let id = path.file_stem().and_then(|stem| ExecutionId::new(stem.to_string_lossy()).ok());
        if id.is_none_or(|id| table.get(&id).is_none()) {
            own_files::clear(&path)?;
        }
    }
    Ok(())
}
