//! HTTP/2 on any byte stream.

mod children;
mod executions;
mod router;
mod routes;

use std::{convert::Infallible, sync::Arc};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::guest::Guest;

/// The flow-control windows, which are large: the stream under a channel has latency, and one upload must fill it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME_SIZE: u32 = 256 * 1024;
const SEND_BUFFER: usize = 1 << 20;

/// The most streams at once: a thousand calls at once are normal, and as many that their callers gave up.
const MAX_STREAMS: u32 = 4_096;

/// Serves one channel until it breaks, or the guest ends and every answer that was begun is sent.
pub async fn serve<S>(guest: Arc<Guest>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
