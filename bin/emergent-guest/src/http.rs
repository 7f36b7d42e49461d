//! HTTP/2 on any byte stream.

mod children;
mod executions;
mod router;
mod routes;

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutReader;

use crate::guest::Guest;

/// The flow-control windows, which are large: the stream under a channel has latency, and one upload must fill it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME_SIZE: u32 = 256 * 1024;
const SEND_BUFFER: usize = 1 << 20;

/// The most streams at once: a thousand calls at once are normal, and as many that their callers gave up.
const MAX_STREAMS: u32 = 4_096;

/// The time after which a channel without a byte from the server is over. The server pings every ten seconds; an engine
/// that lost the server while it opened a channel keeps the channel open for ever.
const SILENCE: Duration = Duration::from_secs(90);

/// Serves one channel until it breaks or falls silent, or the guest ends and every answer that was begun is sent.
pub async fn serve<S>(guest: Arc<Guest>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = never_silent(stream);
    // Kept to the end: the guest waits for whoever has one.
    let mut closing = guest.closing.subscribe();
    let service = service_fn(move |request| {
        let guest = Arc::clone(&guest);
        async move { Ok::<_, Infallible>(routes::answer(guest, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(MAX_STREAMS as usize)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // A caller that vanishes is no fault of ours.
        tracing::debug!(%error, "a channel broke");
    }
}

/// Makes reading fail once nothing has come for too long.
fn never_silent<S: AsyncRead + AsyncWrite>(stream: S) -> Pin<Box<TimeoutReader<S>>> {
    let mut stream = TimeoutReader::new(stream);
    stream.set_timeout(Some(SILENCE));
    Box::pin(stream)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::sleep,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_channel_lasts_while_the_server_says_something_and_ends_when_it_falls_silent() {
        let (mut server, guest) = duplex(64);
        let mut guest = never_silent(guest);
        let pings = async {
            for _ in 0..3 {
                sleep(SILENCE - Duration::from_secs(1)).await;
                server.write_all(b"ping").await.unwrap();
            }
        };
        let mut read = [0; 12];
        let (_, read) = tokio::join!(pings, guest.read_exact(&mut read));
        read.unwrap();
        let error = guest.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
