//! `emergent-guest connect`: joins standard input and output to the guest's socket.
//!
//! A container engine runs this to open a channel. Two threads copy, one for each direction; when the caller's input
//! has ended, the other direction goes on until the guest has answered.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The time to wait for a guest that is just starting.
const PATIENCE: Duration = Duration::from_secs(10);

const BUFFER: usize = 256 * 1024;

/// The reason why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The guest does not listen.
    #[error("no guest listens on {path}")]
    NoGuest {
        /// The socket.
        path: String,
        /// The error of the last attempt.
        #[source]
        source: io::Error,
    },
    /// A thread or file could not be made.
    #[error("the channel cannot be set up")]
    Setup(#[source] io::Error),
}

/// Copies until the guest closes the connection.
///
/// # Errors
/// [`ConnectError`] when there is no connection to begin with.
pub fn run(socket: &Path) -> Result<(), ConnectError> {
    let stream = wait_for(socket)?;
    let (mut input, mut output) = standard_streams().map_err(ConnectError::Setup)?;
    let sending = stream.try_clone().map_err(ConnectError::Setup)?;
    let send = move || {
        let copied = copy(&mut input, &mut &sending);
        // The guest may have closed it already.
        let _ = sending.shutdown(if copied.is_ok() { Shutdown::Write } else { Shutdown::Both });
    };
    thread::Builder::new().spawn(send).map_err(ConnectError::Setup)?;
    // Either side may vanish at any time: that is the end, not a failure. The sending thread ends with the process.
    let _ = copy(&mut &stream, &mut output);
    Ok(())
}

fn wait_for(socket: &Path) -> Result<UnixStream, ConnectError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(source) if Instant::now() >= deadline => {
                return Err(ConnectError::NoGuest { path: socket.display().to_string(), source });
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Standard input and output without the standard library's buffers.
fn standard_streams() -> io::Result<(std::fs::File, std::fs::File)> {
    let unbuffered = |stream: std::os::fd::BorrowedFd<'_>| {
        let stream = stream.try_clone_to_owned()?;
        // Only pipes have a size, and a limit may forbid a larger one: slower, but it works.
        let _ = rustix::pipe::fcntl_setpipe_size(&stream, BUFFER);
        Ok::<_, io::Error>(stream.into())
    };
    Ok((unbuffered(io::stdin().as_fd())?, unbuffered(io::stdout().as_fd())?))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
