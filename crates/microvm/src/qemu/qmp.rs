//! QEMU's control socket: one JSON command in a line, one answer in a line, events in between.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::{VmmError, VmmKind};

/// The time that QEMU may take to send anything. Its main loop is held up for a moment when a machine is saved.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time that a client waits before it connects again when the socket's queue is full; the queue has one place.
const INTERVAL: Duration = Duration::from_millis(5);

/// The longest line that QEMU sends: mostly the console's contents.
const LONGEST_LINE: u64 = 1 << 20;

/// A conversation with QEMU, which has one at a time on each socket; others wait.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Opens a conversation.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, VmmError> {
        let opening = async {
            let stream = stream(socket).await.map_err(silent)?;
            let mut qmp = Self { stream: BufReader::new(stream) };
            qmp.line().await.map_err(silent)?;
            qmp.command("begin", "qmp_capabilities", json!({})).await.map(|_| qmp)
        };
        within(opening).await
    }

    /// Gives a command and waits for its answer. `action` describes the command for error messages.
    pub(crate) async fn command(
        &mut self,
        action: &'static str,
        name: &str,
        arguments: Value,
    ) -> Result<Value, VmmError> {
        within(async {
            let request = format!("{}\n", json!({"execute": name, "arguments": arguments}));
            self.stream.write_all(request.as_bytes()).await.map_err(silent)?;
            self.answer(action).await
        })
        .await
    }

    /// Hands QEMU an open file, which later commands call `name`.
    pub(crate) async fn hand_file(&mut self, name: &str, file: BorrowedFd<'_>) -> Result<(), VmmError> {
        within(async {
            let request = format!("{}\n", json!({"execute": "getfd", "arguments": {"fdname": name}}));
            let socket = self.stream.get_ref();
            socket.writable().await.map_err(silent)?;
            // Short enough that a socket which takes anything takes it whole.
            let sent = socket.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let files = [file];
                control.push(SendAncillaryMessage::ScmRights(&files));
                let text = [IoSlice::new(request.as_bytes())];
                Ok(sendmsg(socket.as_fd(), &text, &mut control, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(length) if length == request.len() => self.answer("take a file").await.map(|_| ()),
                Ok(_) => Err(silent(io::Error::from(io::ErrorKind::WriteZero))),
                Err(error) => Err(silent(error)),
            }
        })
        .await
    }

    /// Returns the next line that is no event.
    async fn answer(&mut self, action: &'static str) -> Result<Value, VmmError> {
        loop {
            let mut line = self.line().await.map_err(silent)?;
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(message) = line.pointer("/error/desc").and_then(Value::as_str) {
                return Err(VmmError::Refused { vmm: VmmKind::Qemu, action, message: message.to_owned() });
            }
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

/// Connects; while the socket's queue is full, tries again.
async fn stream(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(INTERVAL).await,
            connected => return connected,
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, VmmError>>) -> Result<T, VmmError> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(silent(io::Error::from(io::ErrorKind::TimedOut))))
}

fn silent(error: io::Error) -> VmmError {
    VmmError::Silent { vmm: VmmKind::Qemu, source: error.into() }
}
