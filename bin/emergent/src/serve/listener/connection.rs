//! One connection, from its first byte to its end.
//!
//! ```text
//!            10 s              first request                 last one ended
//!   taken ─────────► closed   ──────────────► under way ◄──────────────────► idle ── 75 s ──► closed
//! ```
//!
//! Only a connection without a request under way has a deadline: for its first byte, its handshake, the head of a
//! request or the next request. A request under way may last any time; the system's probes and PINGs notice a peer that
//! is gone without closing the connection.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::{
    places::{Activity, ConnectionSlot, UnderWay},
    stall::Stream,
};

/// How long the first request may take to come, with the handshake before it.
const FIRST: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
const IDLE: Duration = Duration::from_secs(75);
/// How long the head of a later HTTP/1 request may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(30);
/// How long a connection that was told to end may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// The size of HTTP/1's buffer for a connection, in bytes; a head is no longer.
const BUFFER: usize = 64 * 1024;
/// The bytes that HTTP/2 receives ahead on a stream, and on all streams of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// The most requests under way on one HTTP/2 connection.
const STREAMS: u32 = 200;
/// The most bytes of all headers of a request: names, values and overhead, as HTTP/2 counts them.
const HEADER_LIST: u32 = 32 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_DEADLINE: Duration = Duration::from_secs(20);

/// The signals that end connections.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// Ends connections once their requests under way have ended.
    pub(super) gently: CancellationToken,
    /// Ends connections at once.
    pub(super) at_once: CancellationToken,
}

/// A connection that was taken.
pub(super) struct Connection {
    place: ConnectionSlot,
    router: Router,
    stop: Stop,
}

/// The body of an answer, with its request, which is under way until the whole body was sent.
struct Tracked {
    body: Body,
    _under_way: UnderWay,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(place: ConnectionSlot, router: Router, stop: Stop) -> Self {
        Self { place, router, stop }
    }

    pub(super) async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let Self { place, router, stop } = self;
        let activity = Arc::clone(place.activity());
        let stream = Stream::new(stream, place);
        let speak = async {
            match tls {
                None => speak(stream, router, &activity, &stop).await,
                Some(tls) => match timeout_at(activity.idle_since() + FIRST, tls.accept(stream)).await {
                    Ok(Ok(stream)) => speak(stream, router, &activity, &stop).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => closed("handshake"),
                },
            }
        };
        tokio::select! {
            () = speak => {}
            () = activity.unwanted() => {}
            () = stop.at_once.cancelled() => {}
        }
    }
}

/// Speaks HTTP until the peer, or the deadline, or the server ends it.
async fn speak<S>(stream: S, router: Router, activity: &Arc<Activity>, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = activity.begin();
        let mut router = router.clone();
        async move {
            let answer = router.call(request.map(Body::new)).await;
            answer.map(|answer| answer.map(|body| Tracked { body, _under_way: under_way }))
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            reason = overdue(activity), if !ending => {
                closed(reason);
                connection.as_mut().graceful_shutdown();
                // One that does not say goodbye is cut off.
                timeout(GOODBYE, connection).await.ok();
                return;
            }
            () = stop.gently.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Completes when a connection has been without a request for too long; returns the reason.
async fn overdue(activity: &Activity) -> &'static str {
    loop {
        let (reason, limit) = if activity.has_asked() { ("idle", IDLE) } else { ("silent", FIRST) };
        let now = Instant::now();
        let due = activity.idle_since() + limit;
        match activity.is_busy() {
            true => sleep_until(now + limit).await,
            false if due <= now => return reason,
            false => sleep_until(due).await,
        }
    }
}

fn closed(reason: &'static str) {
    counter!("emergent_connections_closed_total", "reason" => reason).increment(1);
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE);
    builder
}

// === impl Tracked ===

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
