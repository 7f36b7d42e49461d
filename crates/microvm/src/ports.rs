//! The host's side of channels on a machine's serial ports.
//!
//! Each port is a Unix socket that takes one connection at a time. The user of a port holds a lock on a file beside it:
//! the lock ends with the process that has it, so a port whose user was killed is free again.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use emergent_guest_proto::port::{Kind, MESSAGE, Nonce, Scanner, message};
use rustix::fs::FlockOperation;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::UnixStream,
    time::timeout,
};

/// The number of ports that a machine has. Two are for one client; the others are for clients at the same time.
pub(crate) const PORTS: usize = 8;

/// The time that a greeting waits for its answer before the next greeting: at first, and at the most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The socket of a port.
pub(crate) fn socket(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("port-{number}.sock"))
}

/// The file that a port's user locks.
pub(crate) fn lock_file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("port-{number}.lock"))
}

/// A port that nobody else uses.
#[derive(Debug)]
pub(crate) struct Port {
    stream: UnixStream,
    _lock: File,
}

/// A channel whose beginning both sides know.
#[derive(Debug)]
pub(crate) struct Channel(Port);

// === impl Port ===

impl Port {
    /// Takes the first port that is free; `None` when all are in use.
    pub(crate) async fn take(dir: &Path) -> io::Result<Option<Self>> {
        for number in 0..PORTS {
            let lock = File::options().create(true).truncate(false).write(true).open(lock_file(dir, number))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(error) => return Err(error.into()),
            }
            let stream = UnixStream::connect(socket(dir, number)).await?;
            return Ok(Some(Self { stream, _lock: lock }));
        }
        Ok(None)
    }

    /// Agrees with the guest on where the channel begins. `alive` is asked again and again while the guest does not
    /// answer, and ends the wait by an error.
    pub(crate) async fn agree<E, F>(mut self, mut alive: impl FnMut() -> F) -> Result<Channel, E>
    where
        E: From<io::Error>,
        F: Future<Output = Result<(), E>>,
    {
        let mut wait = FIRST_WAIT;
        loop {
            // Another one each time, so that a late answer to an earlier greeting is not taken for one to this.
            let nonce: Nonce = rand::random();
            match timeout(wait, self.greet(&nonce)).await {
                Ok(Ok(())) => return Ok(Channel(self)),
                Ok(Err(error)) => {
                    alive().await?;
                    return Err(error.into());
                }
                Err(_) => alive().await?,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn greet(&mut self, nonce: &Nonce) -> io::Result<()> {
        self.stream.write_all(&message(Kind::Hello, nonce)).await?;
        self.hear(Kind::Ready, nonce).await?;
        self.stream.write_all(&message(Kind::Begin, nonce)).await?;
        self.hear(Kind::Begun, nonce).await
    }

    /// Skips everything before a message, and reads nothing after it.
    async fn hear(&mut self, kind: Kind, nonce: &Nonce) -> io::Result<()> {
        let (mut scanner, mut buffer) = (Scanner::default(), [0; MESSAGE]);
        loop {
            let wanted = scanner.wanted();
            match self.stream.read(&mut buffer[..wanted]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    if scanner.push(&buffer[..read]) == Some((kind, *nonce)) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

// === impl Channel ===

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_shutdown(cx)
    }
}
