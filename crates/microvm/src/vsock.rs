//! The host's side of channels by vsock. The process that drives the machine's device passes on calls that come by a
//! Unix socket: Firecracker itself, or a process beside QEMU.

use std::{io, path::Path, time::Duration};

use emergent_guest_proto::machine::VSOCK_PORT;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

/// The socket's name in the machine's directory.
pub(crate) const SOCKET: &str = "vsock.sock";

/// The interval at which a guest that does not listen yet is called again.
const CALL_INTERVAL: Duration = Duration::from_millis(20);
/// The time that a call may take to be passed on.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer to a call.
const LONGEST_ANSWER: usize = 32;

/// Calls the guest of a machine's directory until it answers. `alive` is asked after each call without an answer, and
/// ends the wait by an error.
pub(crate) async fn open<E, F>(dir: &Path, alive: impl Fn() -> F) -> Result<UnixStream, E>
where
    F: Future<Output = Result<(), E>>,
{
    loop {
        // Nobody listens while the guest boots.
        if let Ok(Ok(stream)) = timeout(CALL_PATIENCE, call(&dir.join(SOCKET))).await {
            return Ok(stream);
        }
        alive().await?;
        sleep(CALL_INTERVAL).await;
    }
}

/// Calls once, by Firecracker's handshake, which other programs have adopted.
async fn call(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {VSOCK_PORT}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte, as what follows the line is the guest's.
    while answer.last() != Some(&b'\n') {
        if answer.len() == LONGEST_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.push(stream.read_u8().await?);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}
