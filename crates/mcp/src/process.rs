//! Children that are programs of this machine, ended with this process: for tests and for tools.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout, Command},
    sync::{Mutex as AsyncMutex, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::child::{Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher};

/// The longest tail of stderr that is kept.
const STDERR_TAIL: usize = 8 << 10;

/// The time for which stderr may still be read after the child's end: a descendant may hold it open for ever.
const STDERR_AFTER_END: Duration = Duration::from_millis(200);

/// How much one read of stdout takes at most.
const CHUNK: usize = 64 << 10;

/// Starts a program for each child, in a process group of its own.
#[derive(Clone, Debug, Default)]
pub struct ProcessLauncher {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The variables that are set in the program's environment, beside those that it inherits.
    pub environment: Vec<(OsString, OsString)>,
    /// The directory in which the program runs; this process's own when absent.
    pub directory: Option<PathBuf>,
}

struct ProcessChild {
    id: ChildId,
    note: Mutex<ChildNote>,
    pid: Pid,
    io: Option<(Reader, Stdin)>,
    exit: watch::Receiver<Option<Exit>>,
    stdin: Stdin,
    _alive: DropGuard,
}

struct Reader {
    stdout: ChildStdout,
    buffer: BytesMut,
}

/// The writer of a child's stdin, which [`Child::end`] can close, too.
#[derive(Clone)]
struct Stdin {
    pipe: Arc<AsyncMutex<Option<ChildStdin>>>,
    /// Interrupts a write that the child does not take.
    closed: CancellationToken,
}

type Tail = Arc<Mutex<VecDeque<u8>>>;

// === impl ProcessLauncher ===

impl ProcessLauncher {
    /// Starts this program with these arguments.
    pub fn new<I: Into<OsString>>(command: impl IntoIterator<Item = I>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

#[async_trait]
impl Launcher for ProcessLauncher {
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let start = |reason: String| LaunchError::Start { reason };
        let (program, args) = self.command.split_first().ok_or_else(|| start("no program is named".to_owned()))?;
        let mut command = Command::new(program);
        command.args(args).envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(|error| start(format!("{}: {error}", program.to_string_lossy())))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(start("its pipes could not be made".to_owned()));
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| start("it ended at once".to_owned()))?;

        let id = ChildId::new(format!("{}-{}", pid.as_raw_pid(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let (tell, exit) = watch::channel(None);
        let alive = CancellationToken::new();
        let dropped = alive.clone();
        // Owned by the guard in the child: when that is dropped, the task ends the whole group and then itself.
        tokio::spawn(async move {
            let tail = Tail::default();
            let mut reading = tokio::spawn(keep_tail(stderr, Arc::clone(&tail)));
            let status = tokio::select! {
                status = child.wait() => status,
                () = dropped.cancelled() => {
                    let _ = kill_process_group(pid, Signal::KILL);
                    child.wait().await
                }
            };
            let _ = kill_process_group(pid, Signal::KILL);
            if timeout(STDERR_AFTER_END, &mut reading).await.is_err() {
                reading.abort();
            }
            let tail: Vec<u8> = tail.lock().iter().copied().collect();
            tell.send_replace(Some(exit_of(status, &tail)));
        });

        let stdin = Stdin { pipe: Arc::new(AsyncMutex::new(Some(stdin))), closed: CancellationToken::new() };
        let io = (Reader { stdout, buffer: BytesMut::new() }, stdin.clone());
        Ok(Box::new(ProcessChild {
            id,
            note: Mutex::new(note),
            pid,
            io: Some(io),
            exit,
            stdin,
            _alive: alive.drop_guard(),
        }))
    }

    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError> {
        Ok(Vec::new())
    }
}

// === impl ProcessChild ===

#[async_trait]
impl Child for ProcessChild {
    fn id(&self) -> &ChildId {
        &self.id
    }

    fn note(&self) -> ChildNote {
        self.note.lock().clone()
    }

    async fn set_note(&self, note: ChildNote) -> Result<(), ChildError> {
        *self.note.lock() = note;
        Ok(())
    }

    fn take_io(&mut self) -> Option<(Box<dyn ChildReader>, Box<dyn ChildWriter>)> {
        self.io.take().map(|(reader, writer)| (Box::new(reader) as _, Box::new(writer) as _))
    }

    async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        // The sender is dropped only after it has sent, unless the runtime is going away.
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()).unwrap_or_default()
    }

    async fn end(&self, grace: Duration) -> Exit {
        self.stdin.shut().await;
        let polite = grace / 3;
        if let Ok(exit) = timeout(polite, self.exited()).await {
            return exit;
        }
        let _ = kill_process_group(self.pid, Signal::TERM);
        if let Ok(exit) = timeout(grace.saturating_sub(polite), self.exited()).await {
            return exit;
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.exited().await
    }
}

// === impl Reader ===

#[async_trait]
impl ChildReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.buffer.reserve(CHUNK);
        let read = self.stdout.read_buf(&mut self.buffer).await?;
        Ok((read > 0).then(|| self.buffer.split().freeze()))
    }

    fn acknowledge(&mut self, _bytes: usize) {}
}

// === impl Stdin ===

impl Stdin {
    async fn shut(&self) {
        self.closed.cancel();
        *self.pipe.lock().await = None;
    }
}

#[async_trait]
impl ChildWriter for Stdin {
    async fn write(&mut self, line: Bytes) -> io::Result<()> {
        let mut pipe = self.pipe.lock().await;
        let Some(stdin) = pipe.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        tokio::select! {
            written = stdin.write_all(&line) => written,
            () = self.closed.cancelled() => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn close(&mut self) {
        self.shut().await;
    }
}

/// Reads to the end and keeps the last bytes.
async fn keep_tail(mut from: impl AsyncRead + Unpin, tail: Tail) {
    let mut buffer = [0_u8; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut tail = tail.lock();
        tail.extend(&buffer[..read]);
        let over = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..over);
    }
}

fn exit_of(status: io::Result<ExitStatus>, tail: &[u8]) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    let stderr = String::from_utf8_lossy(tail).into_owned();
    match status {
        Ok(status) => Exit { code: status.code(), signal: status.signal(), stderr },
        Err(_) => Exit { stderr, ..Exit::default() },
    }
}
