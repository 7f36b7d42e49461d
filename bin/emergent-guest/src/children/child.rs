//! One child, from its start until it is forgotten.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use emergent_guest_proto::{
    ChildExit, ChildId, ChildStatus, ErrorCode, GuestError, RunAs,
    child::{STDERR_KEPT, SpawnChild},
    execution::Program,
};
use parking_lot::Mutex;
use rustix::pipe::PipeFlags;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{ring::Ring, unread::Unread};
use crate::process::{
    launch::{Launch, Launcher},
    reaper::{Exit, Reaper},
    tree::Family,
};

/// The variable that identifies a child's processes if they run as root and dropped their tag.
const ID_VARIABLE: &str = "EMERGENT_CHILD_ID";
/// The most bytes that are read from a pipe at once.
const READ: usize = 64 * 1024;
/// The time that a child's remaining processes have between SIGTERM and SIGKILL after its end.
const LEFT_BEHIND: Duration = Duration::from_millis(500);
/// The time that the end of output may take after the end of the process: it takes longer only if another process holds
/// the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A child of the guest.
#[derive(Debug)]
pub struct Child {
    /// The child's name.
    pub id: ChildId,
    /// When the child was started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The standard output that no reader has acknowledged.
    pub stdout: Unread,
    /// The last bytes of the standard error.
    pub stderr: Ring,
    /// The standard input, while it is open. A writer locks it.
    pub stdin: Arc<tokio::sync::Mutex<Stdin>>,
    /// The number of readers that have come; each ends when another comes.
    pub readers: watch::Sender<u64>,
    /// The number of writers, likewise.
    pub writers: watch::Sender<u64>,
    pid: i32,
    note: Mutex<String>,
    family: Family,
    reaper: Arc<Reaper>,
    /// Set when the process is gone and all its output was read.
    exit: watch::Sender<Option<ChildExit>>,
}

/// The writing end of a child's standard input.
#[derive(Debug)]
pub struct Stdin {
    /// The pipe, until it is closed.
    pub pipe: Option<pipe::Sender>,
    /// The offset after the last whole line that was received.
    pub taken: u64,
    /// Whole lines, or the rest of them, that the pipe has not taken yet.
    pub pending: Bytes,
}

/// The guest's ends of a child's pipes.
#[derive(Debug)]
pub struct Pipes {
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

/// The child's ends of the pipes.
#[derive(Debug)]
pub struct ChildEnds([OwnedFd; 3]);

/// A process that was just made for a child.
#[derive(Debug)]
pub struct Made {
    request: SpawnChild,
    pid: i32,
    exit: oneshot::Receiver<Exit>,
    family: Family,
    reaper: Arc<Reaper>,
}

// === impl Pipes ===

impl Pipes {
    /// Makes three pipes.
    ///
    /// # Errors
    /// When the limit on descriptors is reached.
    pub fn make() -> io::Result<(Self, ChildEnds)> {
        let [input, output, errors] =
            [(); 3].map(|()| rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from));
        let ((input, to), (from, output), (errors_from, errors)) = (input?, output?, errors?);
        let ours = Self {
            stdin: pipe::Sender::from_owned_fd(to)?,
            stdout: pipe::Receiver::from_owned_fd(from)?,
            stderr: pipe::Receiver::from_owned_fd(errors_from)?,
        };
        Ok((ours, ChildEnds([input, output, errors])))
    }
}

// === impl ChildEnds ===

impl ChildEnds {
    /// Starts the program on the pipes. Blocks until it runs.
    ///
    /// # Errors
    /// A [`GuestError`] that tells the caller how to mend the request.
    pub fn launch(
        self,
        launcher: &Launcher,
        program: &Program,
        workdir: &Path,
        request: SpawnChild,
    ) -> Result<Made, GuestError> {
        let Self([input, output, errors]) = self;
        let group_tag = launcher.group_tags.next();
        let mut variables = request.env.clone();
        variables.insert(ID_VARIABLE.into(), request.child_id.to_string());
        let (pid, exit) = launcher.launch(&Launch {
            program,
            workdir,
            variables: &variables,
            user: request.user,
            group_tag,
            stdio: [
                input.as_fd(),
                if request.stdout_to_stderr { errors.as_fd() } else { output.as_fd() },
                errors.as_fd(),
            ],
        })?;
        let variable = (request.user == RunAs::Root).then(|| format!("{ID_VARIABLE}={}", request.child_id));
        let family = Family { leader: Some(pid), group_tag, variable };
        Ok(Made { request, pid, exit, family, reaper: Arc::clone(&launcher.reaper) })
    }
}

// === impl Child ===

impl Child {
    /// Takes over a process that was just made. Its tasks end with it.
    pub fn begin(made: Made, pipes: Pipes) -> Arc<Self> {
        let Made { request, pid, exit, family, reaper } = made;
        let Pipes { stdin, stdout, stderr } = pipes;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let child = Arc::new(Self {
            id: request.child_id,
            started_at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            stdout: Unread::new(usize::try_from(request.buffer).unwrap_or(usize::MAX)),
            stderr: Ring::new(STDERR_KEPT),
            stdin: Arc::new(tokio::sync::Mutex::new(Stdin { pipe: Some(stdin), taken: 0, pending: Bytes::new() })),
            readers: watch::Sender::new(0),
            writers: watch::Sender::new(0),
            pid,
            note: Mutex::new(request.note),
            family,
            reaper,
            exit: watch::Sender::new(None),
        });
        let (reading, complaining) = (Arc::clone(&child), Arc::clone(&child));
        let output = tokio::spawn(async move { reading.read_output(stdout).await });
        let errors = tokio::spawn(async move { complaining.read_errors(stderr).await });
        let waiting = Arc::clone(&child);
        tokio::spawn(async move { waiting.see_to_its_end(exit, output, errors).await });
        child
    }

    /// Returns how the child ended, if it has.
    pub fn exit(&self) -> Option<ChildExit> {
        self.exit.borrow().clone()
    }

    /// Waits for the child's end.
    pub async fn wait(&self) -> Option<ChildExit> {
        let mut exit = self.exit.subscribe();
        // `self` owns the sender, so that it cannot be gone.
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone())
    }

    /// Replaces the note.
    pub fn set_note(&self, note: String) {
        *self.note.lock() = note;
    }

    /// Returns the child's state, for callers.
    pub fn describe(&self) -> ChildStatus {
        let (stdout_acknowledged, stdout_end) = self.stdout.offsets();
        ChildStatus {
            child_id: self.id.clone(),
            pid: self.pid.unsigned_abs(),
            started_at_ms: self.started_at_ms,
            exit: self.exit(),
            note: self.note.lock().clone(),
            stdout_acknowledged,
            stdout_end,
            stderr_end: self.stderr.end(),
        }
    }

    /// Sends a signal to the child's process group.
    ///
    /// # Errors
    /// `not_running` when the child has ended.
    pub fn signal(&self, number: i32) -> Result<(), GuestError> {
        match self.reaper.signal_group(self.pid, number) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.not_running()),
            Err(error) => Err(GuestError::new(ErrorCode::Internal, format!("the signal was not sent: {error}"))),
        }
    }

    /// Takes the place of the writer, and closes standard input. Input that the child has not read by then is dropped.
    pub async fn close_stdin(&self) {
        self.writers.send_modify(|writers| *writers += 1);
        self.stdin.lock().await.pipe = None;
    }

    /// Ends the child and all processes that it has started: end of input, then SIGTERM, then SIGKILL.
    pub async fn end(&self, after_eof: Duration, grace: Duration) {
        if self.exit().is_some() {
            return;
        }
        self.close_stdin().await;
        if timeout(after_eof, self.wait()).await.is_err() {
            self.family.terminate(grace).await;
            self.wait().await;
        }
    }

    /// Makes the error of a call that needs a running child.
    pub fn not_running(&self) -> GuestError {
        GuestError::new(ErrorCode::NotRunning, format!("the child {} has ended, or its input is closed", self.id))
    }

    async fn read_output(&self, mut pipe: pipe::Receiver) {
        let mut buffer = vec![0; READ];
        loop {
            let room = self.stdout.room().await.min(READ);
            match pipe.read(&mut buffer[..room]).await {
                Ok(0) | Err(_) => break,
                Ok(count) => self.stdout.push(&buffer[..count]),
            }
        }
        self.stdout.end();
    }

    async fn read_errors(&self, mut pipe: pipe::Receiver) {
        let mut buffer = vec![0; READ];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.stderr.push(&buffer[..count]);
        }
    }

    async fn see_to_its_end(
        &self,
        exit: oneshot::Receiver<Exit>,
        mut output: tokio::task::JoinHandle<()>,
        mut errors: tokio::task::JoinHandle<()>,
    ) {
        let exit = match exit.await {
            Ok(Exit::Code(code)) => ChildExit { code: Some(code), signal: None },
            Ok(Exit::Signal(number)) => ChildExit { code: None, signal: Some(number) },
            Err(_) => ChildExit { code: None, signal: None },
        };
        // The leader's id may be another's from now on.
        let left = Family { leader: None, ..self.family.clone() };
        left.terminate(LEFT_BEHIND).await;
        // Output that nobody makes room for stays in the pipe, and so does the task that reads it.
        let _ = timeout(LAST_OUTPUT, async { tokio::join!(&mut output, &mut errors) }).await;
        self.exit.send_replace(Some(exit));
        self.writers.send_modify(|writers| *writers += 1);
        self.stdin.lock().await.pipe = None;
    }
}

/// Makes the error of pipes that cannot be made.
pub fn setup_failed(error: io::Error) -> GuestError {
    let message = format!("the child's pipes cannot be made: {error}");
    GuestError::new(crate::failure::code_of(&error), message)
}
