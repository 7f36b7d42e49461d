//! One connection, from its first byte to its end.
//!
//! ```text
//!            10 s              first request                 last one ended
//!   taken ─────────► closed   ──────────────► under way ◄──────────────────► idle ── 75 s ──► closed
//! ```
//!
//! Only a connection without a request under way has a deadline: for its first byte, its handshake, the head of a
//! request or the next request. A request under way may last any time, as long as the peer takes what it is answered;
//! the system's probes and PINGs notice a peer that is gone without closing the connection.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::{
    answer::Answer,
    places::{Activity, ConnectionSlot, Standing},
    stall::{STALL, Stream},
};

/// The time that the first request may take to come, with the handshake before it.
const FIRST: Duration = Duration::from_secs(10);
/// The time for which a connection may be idle between requests.
const IDLE: Duration = Duration::from_secs(75);
/// The time that the head of a later HTTP/1 request may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(30);
/// The time that a connection that was told to end may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// The size of HTTP/1's buffer for a connection, in bytes; a head is no longer.
const BUFFER: usize = 64 * 1024;
/// The bytes that HTTP/2 receives ahead on a stream, and on all streams of a connection. They are on no account: a
/// project's calls together can have as many of the first, and all connections as many of the second.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
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
                Some(tls) => match timeout_at(activity.standing().1 + FIRST, tls.accept(stream)).await {
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
            answer.map(|answer| answer.map(|body| Answer::new(body, under_way)))
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

/// Completes when a connection has been without a request, or its peer without taking any of its answers, for too long;
/// returns the reason.
async fn overdue(activity: &Activity) -> &'static str {
    loop {
        let (standing, since) = activity.standing();
        let (reason, limit) = match standing {
            Standing::Silent => ("silent", FIRST),
            Standing::Idle => ("idle", IDLE),
            Standing::Untaken => ("untaken", STALL),
            // Whatever it is after this, it may be that for as long.
            Standing::Busy => {
                sleep(IDLE).await;
                continue;
            }
        };
        let (now, due) = (Instant::now(), since + limit);
        if due <= now {
            return reason;
        }
        sleep_until(due.min(now + IDLE)).await;
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

#[cfg(test)]
mod tests {
    use std::{future::pending, io};

    use axum::routing::get;
    use hyper::client::conn::http2;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Speaks with a peer until the connection ends.
    async fn speak_with(peer: impl FnOnce(DuplexStream)) {
        let stream = || async { Body::from_stream(futures::stream::once(pending::<io::Result<&'static str>>())) };
        let router = Router::new().route("/", get(|| async { "hello" })).route("/stream", get(stream));
        let (here, there) = duplex(1 << 20);
        peer(there);
        speak(here, router, &Arc::new(Activity::new()), &Stop::default()).await;
    }

    /// A peer that asks for this with HTTP/2, takes nothing of the answer, and answers PINGs.
    fn asks_and_takes_nothing(path: &'static str) -> impl FnOnce(DuplexStream) {
        move |stream| {
            tokio::spawn(async move {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                let client = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream));
                let (mut sender, connection) = client.await.unwrap();
                let request = Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap();
                let (answer, _) = tokio::join!(sender.send_request(request), async {
                    tokio::spawn(connection);
                });
                let _kept = (answer.unwrap(), sender);
                pending::<()>().await;
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_its_connection_and_one_that_does_not_come_does_not() {
        let began = Instant::now();
        speak_with(asks_and_takes_nothing("/")).await;
        let lasted = began.elapsed();
        assert!(lasted >= STALL && lasted <= STALL + IDLE + GOODBYE, "{lasted:?}");
        let waiting = timeout(10 * STALL, speak_with(asks_and_takes_nothing("/stream"))).await;
        assert!(waiting.is_err(), "a stream is cut off");
    }

    #[tokio::test]
    async fn no_more_of_a_body_is_received_ahead_than_its_window() {
        let (sender, told) = tokio::sync::oneshot::channel();
        let peer = |mut stream: DuplexStream| {
            tokio::spawn(async move {
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let (mut of_stream, mut of_connection) = (None, None);
                while of_stream.is_none() || of_connection.is_none() {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head).await.unwrap();
                    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                    stream.read_exact(&mut payload).await.unwrap();
                    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                    match head[3] {
                        // Not the answer to the peer's own.
                        4 if head[4] == 0 => {
                            of_stream = payload.chunks(6).find(|it| it[..2] == [0, 4]).map(|it| number(&it[2..]))
                        }
                        8 => of_connection = Some(number(&payload) + 65_535),
                        _ => {}
                    }
                }
                sender.send((of_stream, of_connection)).unwrap();
            });
        };
        speak_with(peer).await;
        assert_eq!(told.await.unwrap(), (Some(64 << 10), Some(128 << 10)));
    }
}
