//! Networks asked of the privileged helper.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    time::timeout,
};

use crate::{
    AttachRequest, Attachment, MachineId, MachineNetwork, NetworkError, NetworkStatus, TapInterface, TapName,
    wire::{self, Answer, Attach, Request},
};

/// Longer than anything the helper does: its own programs are given 5 s each.
const DEADLINE: Duration = Duration::from_secs(30);

/// Networks asked of a [`crate::helper`]. Connects when it is first needed, and again after the helper was restarted.
pub struct NetworkClient {
    socket: PathBuf,
    /// Requests go one after the other: the helper makes one change at a time.
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

// === impl NetworkClient ===

impl NetworkClient {
    /// A client of the helper that listens there.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: Mutex::new(None) }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, NetworkError> {
        let mut held = self.connection.lock().await;
        // A connection that stood before may be to a helper that is gone. Every request may be repeated.
        if let Some(connection) = held.take()
            && let Ok((connection, answer)) = within_deadline(connection.ask(request)).await
        {
            *held = Some(connection);
            return refused(answer);
        }
        let asked = within_deadline(async { Connection::open(&self.socket).await?.ask(request).await }).await;
        let unreachable =
            |error: io::Error| NetworkError::NoHelper { reason: format!("{}: {error}", self.socket.display()) };
        let (connection, answer) = asked.map_err(unreachable)?;
        *held = Some(connection);
        refused(answer)
    }
}

#[async_trait]
impl MachineNetwork for NetworkClient {
    async fn attach(&self, request: &AttachRequest) -> Result<Option<TapInterface>, NetworkError> {
        match self.ask(&Request::Attach(Attach::from(request))).await? {
            Answer::Attached(interface) => Ok(interface.map(Into::into)),
            other => Err(unexpected(&other)),
        }
    }

    async fn detach(&self, machine: MachineId) -> Result<(), NetworkError> {
        match self.ask(&Request::Detach { machine }).await? {
            Answer::Detached => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        match self.ask(&Request::List {}).await? {
            Answer::Listed(listed) => Ok(listed.into_iter().map(Into::into).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_strays(&self, known: &[MachineId]) -> Result<Vec<TapName>, NetworkError> {
        match self.ask(&Request::RemoveStrays { known: known.to_vec() }).await? {
            Answer::Removed(names) => Ok(names.into_iter().map(|name| name.0).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn status(&self) -> Result<NetworkStatus, NetworkError> {
        match self.ask(&Request::Status {}).await? {
            Answer::Status(status) => Ok(status.into()),
            other => Err(unexpected(&other)),
        }
    }
}

async fn within_deadline<T>(asking: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(DEADLINE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refused(answer: Answer) -> Result<Answer, NetworkError> {
    match answer {
        Answer::Failed(error) => Err(error),
        answer => Ok(answer),
    }
}

fn unexpected(answer: &Answer) -> NetworkError {
    let kind = match answer {
        Answer::Attached(_) => "attached",
        Answer::Detached => "detached",
        Answer::Listed(_) => "listed",
        Answer::Removed(_) => "removed",
        Answer::Status(_) => "status",
        Answer::Failed(_) => "failed",
    };
    NetworkError::NoHelper { reason: format!("it answered another question, with {kind:?}") }
}

// === impl Connection ===

impl Connection {
    async fn open(socket: &Path) -> io::Result<Self> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        Ok(Self { reader: BufReader::new(reader), writer })
    }

    /// Asks one thing. A connection on which that was cut short is not used again, so it is taken and given back.
    async fn ask(mut self, request: &Request) -> io::Result<(Self, Answer)> {
        let sent = wire::send(&mut self.writer, request).await;
        // A helper that lets go of a client may have said why before.
        match wire::receive(&mut self.reader, wire::LONGEST_ANSWER).await? {
            Some(answer) => Ok((self, answer)),
            None => Err(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
