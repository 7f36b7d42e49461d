//! Byte streams to guests: a container's own stdio, or an exec's.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bollard::{
    Docker,
    container::{AttachContainerResults, LogOutput},
    errors::Error,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    query_parameters::AttachContainerOptionsBuilder,
};
use bytes::{Buf as _, Bytes};
use emergent_guest_proto::GUEST_BINARY;
use emergent_provider::ByteStream;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::{EngineError, bounded};

/// How much of one piece of the guest's standard error is logged.
const LOGGED_BYTES: usize = 1024;
/// The size of the buffer for the engine's output, in bytes.
const OUTPUT_CAPACITY: usize = 64 * 1024;

/// Standard input and output of a process in a container, demultiplexed. Dropping it closes both.
struct Stdio {
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
    /// Output that was received and has not been read.
    pending: Bytes,
}

/// Attaches to a container's own stdio, which must be done before it starts.
pub(crate) async fn attach(docker: &Docker, container: &str) -> Result<ByteStream, EngineError> {
    let options = AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
    let AttachContainerResults { output, input } = bounded(docker.attach_container(container, Some(options))).await?;
    Ok(Box::new(Stdio { output, input, pending: Bytes::new() }))
}

/// Opens one more channel to the guest of a running container, as the user that the container was made with. (For an
/// exec that names a user the engine reads files of the container: `accounts.rs`.)
pub(crate) async fn connect(docker: &Docker, container: &str) -> Result<ByteStream, EngineError> {
    let exec = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(vec![GUEST_BINARY, "connect"]),
        working_dir: Some("/"),
        ..CreateExecOptions::default()
    };
    let exec = bounded(docker.create_exec(container, exec)).await?;
    let start = StartExecOptions { output_capacity: Some(OUTPUT_CAPACITY), ..StartExecOptions::default() };
    match bounded(docker.start_exec(&exec.id, Some(start))).await? {
        StartExecResults::Attached { output, input } => Ok(Box::new(Stdio { output, input, pending: Bytes::new() })),
        StartExecResults::Detached => {
            Err(EngineError::Docker(io::Error::other("the engine detached from an exec that it was to attach").into()))
        }
    }
}

// === impl Stdio ===

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(self.output.poll_next_unpin(context)) {
                Some(Ok(LogOutput::StdOut { message })) => self.pending = message,
                Some(Ok(LogOutput::StdErr { message })) => log(&message),
                Some(Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. })) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "output that is not multiplexed",
                    )));
                }
                Some(Err(Error::IOError { err })) => return Poll::Ready(Err(err)),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.pending.len().min(into.remaining());
        into.put_slice(&self.pending[..length]);
        self.pending.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.input.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_shutdown(context)
    }
}

/// Logs a guest's message for people. The guest chooses the text, so it is cut and quoted.
fn log(message: &[u8]) {
    let text = String::from_utf8_lossy(&message[..message.len().min(LOGGED_BYTES)]);
    tracing::debug!(bytes = message.len(), stderr = ?text.trim_end(), "a guest says");
}
