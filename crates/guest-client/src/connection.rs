//! One HTTP/2 connection on one byte stream, from the handshake to its end.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::{Hello, Route};
use emergent_provider::ByteStream;
use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::BufWriter;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    body::{self, RequestBody},
    error::OpenError,
    limits,
};

/// Names, values and overhead of all headers of an answer, as HTTP/2 counts them.
const HEADER_LIST_LIMIT: u32 = 32 * 1024;
/// The longest frame that a guest may send. The default of 16 KiB would cost a bulk transfer a system call for each on
/// both sides of the engine's pipes.
const FRAME_SIZE: u32 = 256 * 1024;
/// A frame's nine bytes of header would otherwise go to the engine by themselves, before the contents. HTTP/2 flushes
/// when it has nothing more to say, so nothing waits.
const WRITE_BUFFER: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_DEADLINE: Duration = Duration::from_secs(10);

/// The purpose of a connection, which sets its windows.
///
/// A stream's window is what its answer takes in memory while nobody reads it; whoever may leave one unread makes room
/// for that first. A connection's window is far larger, so that such answers do not hold up the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tool calls: answers that are read at once.
    Calls,
    /// Files and long outputs.
    Bulk,
}

/// A connection to a guest that answered. Clones share it; it ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<RequestBody>,
    pub(crate) hello: Arc<Hello>,
    tasks: CancellationToken,
    _ends_with_the_last_clone: Arc<DropGuard>,
}

/// The reason for which a request got no answer.
pub(crate) enum Lost {
    /// The request was never sent.
    Unsent,
    /// The request was sent.
    Sent(hyper::Error),
}

/// Runs the tasks of one connection until it is told to end.
#[derive(Clone)]
struct ConnectionTasks(CancellationToken);

// === impl Connection ===

impl Connection {
    /// Shakes hands and greets. Not bounded in time: the caller does that.
    pub(crate) async fn establish(stream: ByteStream, purpose: Purpose) -> Result<Self, OpenError> {
        let tasks = CancellationToken::new();
        let guard = Arc::new(tasks.clone().drop_guard());
        let executor = ConnectionTasks(tasks.clone());
        let (stream_window, connection_window) = purpose.windows();
        let (sender, connection) = http2::Builder::new(executor.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_frame_size(FRAME_SIZE)
            .max_header_list_size(HEADER_LIST_LIMIT)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_DEADLINE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(BufWriter::with_capacity(WRITE_BUFFER, stream)))
            .await
            .map_err(OpenError::Handshake)?;
        executor.execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, ?purpose, "connection to a guest ended");
            }
        });
        let hello = greet(sender.clone()).await?;
        Ok(Self { sender, hello: Arc::new(hello), tasks, _ends_with_the_last_clone: guard })
    }

    /// Sends one request and waits for the head of its answer.
    pub(crate) async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, Lost> {
        send(self.sender.clone(), request).await
    }

    /// Whether no more requests can be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.tasks.is_cancelled()
    }

    /// Closes the byte stream under whatever is still going on.
    pub(crate) fn cut(&self) {
        self.tasks.cancel();
    }
}

async fn send(
    mut sender: http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Lost> {
    sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(_) => Lost::Unsent,
        None => Lost::Sent(error.into_error()),
    })
}

async fn greet(sender: http2::SendRequest<RequestBody>) -> Result<Hello, OpenError> {
    let request = body::request(Route::Hello, Route::Hello.path()).body(body::empty()).map_err(invalid_greeting)?;
    let answer = send(sender, request).await.map_err(|lost| match lost {
        Lost::Unsent => OpenError::Greeting("the channel ended at once".to_owned()),
        Lost::Sent(error) => OpenError::Handshake(error),
    })?;
    if !answer.status().is_success() {
        return Err(OpenError::Greeting(format!("status {}", answer.status())));
    }
    let hello: Hello = body::json(answer.into_body(), limits::FEW).await.map_err(invalid_greeting)?;
    if hello.generation == 0 {
        return Err(OpenError::Greeting("protocol generation 0".to_owned()));
    }
    Ok(hello)
}

fn invalid_greeting(error: impl std::fmt::Display) -> OpenError {
    OpenError::Greeting(error.to_string())
}

// === impl Purpose ===

impl Purpose {
    /// The windows of a stream and of the whole connection, in bytes.
    fn windows(self) -> (u32, u32) {
        match self {
            Self::Calls => (256 * 1024, 64 * 1024 * 1024),
            Self::Bulk => (256 * 1024, 128 * 1024 * 1024),
        }
    }
}

// === impl ConnectionTasks ===

impl<F> Executor<F> for ConnectionTasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let end = self.0.clone();
        tokio::spawn(async move { end.run_until_cancelled_owned(future).await });
    }
}
