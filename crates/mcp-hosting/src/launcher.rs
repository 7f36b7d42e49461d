//! Children through the guest: processes in the server's sandbox that outlive this process.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_guest_client::{ChildInput, ChildOutput, Guest, GuestCallError, OpenError};
use emergent_guest_proto::{ChildId as GuestChildId, ChildStatus, ErrorCode, GuestPath, RunAs, child::SpawnChild};
use emergent_mcp::{Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher};
use emergent_provider::ChannelError;
use emergent_types::error_chain;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::error::unavailable;

/// The time that a launch waits for a sandbox that is being started.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause after a wait that broke.
const PAUSE: Duration = Duration::from_millis(500);
/// How much of standard error an exit keeps, from its end.
const STDERR_TAIL: usize = 8 * 1024;
/// The time that input that is under way may take to arrive before it is closed.
const LAST_INPUT: Duration = Duration::from_secs(2);
/// The time for which the end of a child is waited for beyond its grace.
const MARGIN: Duration = Duration::from_secs(30);

/// Whether children may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Children may be started.
    Open,
    /// The sandbox is being started: a launch waits.
    Opening,
    /// Children may not be started, for this reason.
    Closed(String),
}

/// The program that each child runs.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) as_root: bool,
    /// The number of bytes of output that the guest keeps.
    pub(crate) buffer: u64,
    /// Whether nobody reads the program's standard output; the guest then adds it to standard error.
    pub(crate) silent: bool,
}

/// Starts and finds the children of one server.
pub(crate) struct GuestLauncher {
    pub(crate) guest: Guest,
    pub(crate) program: Program,
    pub(crate) gate: watch::Receiver<Gate>,
    /// Receives the reasons why programs could not be started.
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

struct GuestChild {
    id: ChildId,
    guest_id: GuestChildId,
    guest: Guest,
    note: Mutex<ChildNote>,
    io: Option<(Reader, Writer)>,
    exit: watch::Receiver<Option<Exit>>,
    waiting: AbortHandle,
}

struct Reader {
    output: ChildOutput,
    acknowledged: u64,
}

struct Writer {
    guest: Guest,
    id: GuestChildId,
    input: Option<ChildInput>,
}

// === impl GuestLauncher ===

#[async_trait]
impl Launcher for GuestLauncher {
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError> {
        self.pass_gate().await?;
        let id = GuestChildId::new(Uuid::now_v7().simple().to_string());
        let child_id = id.map_err(|error| unavailable(error.to_string()))?;
        let program = &self.program;
        let request = SpawnChild {
            child_id,
            argv: program.argv.clone(),
            workdir: program.workdir.as_deref().map(|path| GuestPath::from(Path::new(path))),
            env: program.environment.clone(),
            user: if program.as_root { RunAs::Root } else { RunAs::Agent },
            note: note.as_str().to_owned(),
            stdout_to_stderr: program.silent,
            buffer: program.buffer,
        };
        match self.guest.spawn_child(&request).await {
            Ok(status) => Ok(Box::new(self.child(&status, note))),
            Err(GuestCallError::Refused(refusal)) => {
                // Nobody may be listening any more.
                let _ = self.failures.send(refusal.message.clone());
                Err(LaunchError::Start { reason: refusal.message })
            }
            Err(error) => Err(unavailable(error_chain(&error))),
        }
    }

    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError> {
        let found = self.guest.children().await.map_err(|error| unavailable(error_chain(&error)))?;
        let mut adopted: Vec<Box<dyn Child>> = Vec::new();
        for status in found.children {
            if status.exit.is_some() {
                // It ended while nobody was there: whoever waited for it is gone, too.
                let _ = self.guest.forget_child(&status.child_id).await;
                continue;
            }
            let note = ChildNote::new(status.note.as_str()).map_err(|error| unavailable(error.to_string()))?;
            adopted.push(Box::new(self.child(&status, note)));
        }
        Ok(adopted)
    }
}

impl GuestLauncher {
    async fn pass_gate(&self) -> Result<(), LaunchError> {
        let mut gate = self.gate.clone();
        let passed = timeout(PATIENCE, gate.wait_for(|gate| *gate != Gate::Opening)).await;
        match passed {
            Ok(Ok(gate)) => match &*gate {
                Gate::Closed(reason) => Err(unavailable(reason.clone())),
                Gate::Open | Gate::Opening => Ok(()),
            },
            Ok(Err(_)) => Err(unavailable("the server is going away")),
            Err(_) => Err(unavailable("its sandbox is still being started; try again shortly")),
        }
    }

    fn child(&self, status: &ChildStatus, note: ChildNote) -> GuestChild {
        let (guest, guest_id) = (self.guest.clone(), status.child_id.clone());
        let from = status.stdout_acknowledged;
        let reader = Reader { output: guest.child_output(guest_id.clone(), from), acknowledged: from };
        let input = Some(guest.child_input(guest_id.clone()));
        let writer = Writer { guest: guest.clone(), id: guest_id.clone(), input };
        let (tell, exit) = watch::channel(None);
        let (waiting_guest, waiting_id) = (guest.clone(), guest_id.clone());
        let waiting = tokio::spawn(async move {
            tell.send_replace(Some(end_of(&waiting_guest, &waiting_id).await));
        });
        GuestChild {
            id: ChildId::new(guest_id.as_str()),
            guest_id,
            guest,
            note: Mutex::new(note),
            io: Some((reader, writer)),
            exit,
            waiting: waiting.abort_handle(),
        }
    }
}

/// Waits for the end of a child by its id, without a handle on it.
pub(crate) async fn watch_for_end(guest: &Guest, id: &ChildId) -> Exit {
    match GuestChildId::new(id.as_str()) {
        Ok(id) => end_of(guest, &id).await,
        Err(_) => Exit::default(),
    }
}

/// Waits for the end of a child, makes the guest forget it, and returns how it ended: an empty [`Exit`] where the child
/// or the whole sandbox is gone.
async fn end_of(guest: &Guest, id: &GuestChildId) -> Exit {
    loop {
        match guest.wait_for_child(id).await {
            Ok(status) => {
                let Some(exit) = status.exit else {
                    sleep(PAUSE).await;
                    continue;
                };
                let from = status.stderr_end.saturating_sub(STDERR_TAIL as u64);
                let tail = guest.child_errors(id, from).await.map(|(_, bytes)| bytes).unwrap_or_default();
                // Left to itself it would only take a place.
                let _ = guest.forget_child(id).await;
                let stderr = String::from_utf8_lossy(&tail).into_owned();
                return Exit { code: exit.code, signal: exit.signal, stderr };
            }
            Err(error) if is_gone(&error) => return Exit::default(),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether the child, or its whole sandbox, is not there any more.
fn is_gone(error: &GuestCallError) -> bool {
    match error {
        GuestCallError::Refused(refusal) => refusal.code == ErrorCode::UnknownExecution,
        GuestCallError::Unreachable(source) => {
            matches!(**source, OpenError::Closed | OpenError::Channel(ChannelError::NotRunning))
        }
        GuestCallError::Interrupted { .. }
        | GuestCallError::Timeout { .. }
        | GuestCallError::Exhausted(_)
        | GuestCallError::Nonsense(_) => false,
    }
}

// === impl GuestChild ===

#[async_trait]
impl Child for GuestChild {
    fn id(&self) -> &ChildId {
        &self.id
    }

    fn note(&self) -> ChildNote {
        self.note.lock().clone()
    }

    async fn set_note(&self, note: ChildNote) -> Result<(), ChildError> {
        match self.guest.set_child_note(&self.guest_id, note.as_str().to_owned()).await {
            Ok(()) => {
                *self.note.lock() = note;
                Ok(())
            }
            Err(error) if is_gone(&error) => Err(ChildError::Gone),
            Err(error) => Err(ChildError::Io(io::Error::other(error))),
        }
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
        let after_eof = grace / 3;
        // One that cannot be reached has ended, or ends with its sandbox.
        let _ = self.guest.end_child(&self.guest_id, after_eof, grace.saturating_sub(after_eof)).await;
        timeout(MARGIN, self.exited()).await.unwrap_or_default()
    }
}

impl Drop for GuestChild {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

// === impl Reader ===

#[async_trait]
impl ChildReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.output.next().await.map_err(io::Error::other)
    }

    fn acknowledge(&mut self, bytes: usize) {
        self.acknowledged += bytes as u64;
        self.output.acknowledge(self.acknowledged);
    }
}

// === impl Writer ===

#[async_trait]
impl ChildWriter for Writer {
    async fn write(&mut self, line: Bytes) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write(line).await.map_err(|reason| io::Error::new(io::ErrorKind::BrokenPipe, reason))
    }

    async fn close(&mut self) {
        if let Some(input) = self.input.take() {
            // What does not arrive in time is not waited for; nor does it matter to a child that has ended.
            let _ = timeout(LAST_INPUT, input.finish()).await;
            let _ = self.guest.close_child_input(&self.id).await;
        }
    }
}
