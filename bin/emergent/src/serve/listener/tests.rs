//! The listener, as a client sees it.

use std::future::pending;

use axum::{body::Body, extract::Request, routing::get};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Served {
    /// Starts a server that answers `/`, and begins an answer to `/stream` that never ends.
    fn start(limits: ConnectionLimits) -> Self {
        let never = || async { Body::from_stream(futures::stream::once(pending::<io::Result<&'static str>>())) };
        let router = Router::new().route("/", get(|| async { "hello" })).route("/stream", get(never));
        let listener = bind("127.0.0.1:0".parse().unwrap(), "TEST").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let task = tokio::spawn(async move {
            let (connections, stop) = (TaskTracker::new(), Stop::default());
            match accept(&listener, None, router, Places::new(limits), &connections, &stop).await {}
        });
        Self { address, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Opens a connection and sends bytes on it.
    async fn saying(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Waits until the server takes a connection and answers.
    async fn answers_again(&self) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let mut stream = self.connect().await;
            // One that is refused may be closed before or after it is written to.
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok();
            let mut buffer = [0; 64];
            if stream.read(&mut buffer).await.is_ok_and(|read| buffer[..read].starts_with(b"HTTP/1.1 200")) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "no place was given back");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the server closes the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // It is the end that counts, not how it came.
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the server closes the connection").ok();
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 1024];
    let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed_and_one_that_has_something_under_way_is_not() {
    let served = Served::start(ConnectionLimits::default());
    let mut streaming = served.saying(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer(&mut streaming).await.starts_with("HTTP/1.1 200"));
    let mut silent = vec![
        served.saying(b"").await,
        served.saying(b"P").await,
        served.saying(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
        served.saying(b"GET / HTTP/1.1\r\nhost: loc").await,
    ];
    for stream in &mut silent {
        closed(stream).await;
    }
    // By now it has been open for longer than a silent one may be.
    let more = timeout(Duration::from_millis(100), streaming.read(&mut [0; 16])).await;
    assert!(more.is_err(), "a stream is cut off: {more:?}");
}

#[tokio::test]
async fn connections_that_only_are_held_open_keep_nobody_out() {
    let served = Served::start(ConnectionLimits { all: 16, one_address: 16 });
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(served.connect().await);
        let mut stream = served.saying(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    closed(&mut held[0]).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_keep_nobody_out() {
    let served = Served::start(ConnectionLimits { all: 4, one_address: 4 });
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let client = builder.initial_stream_window_size(0).handshake(TokioIo::new(served.connect().await));
        let (mut sender, connection) = client.await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://localhost/").body(Body::empty()).unwrap();
        held.push((sender.send_request(request).await.unwrap(), sender));
    }
    closed(&mut served.connect().await).await;
    served.answers_again().await;
}

#[tokio::test]
async fn a_server_full_of_requests_under_way_takes_no_more_and_takes_them_again() {
    let served = Served::start(ConnectionLimits { all: 4, one_address: 4 });
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut stream = served.saying(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        busy.push(stream);
    }
    closed(&mut served.connect().await).await;
    busy.pop();
    served.answers_again().await;
}
