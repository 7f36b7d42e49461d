//! A guest whose every answer is written by the test. Each stream that is opened is one connection, numbered from 0.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_guest_client::{Guest, Open};
use emergent_guest_proto::{ErrorCode, GENERATION, GuestError, Hello, Route, call::AGAIN_HEADER};
use emergent_provider::{ByteStream, ChannelError};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Script = Arc<dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync>;

/// One request, as the script sees it.
pub(crate) struct Asked {
    /// The number of the connection that the request came on.
    pub(crate) connection: usize,
    /// Method and path, such as `POST /v1/tools/bash`.
    pub(crate) what: String,
    /// The query string.
    pub(crate) query: String,
    /// Whether it may have come before.
    pub(crate) again: bool,
    cut: CancellationToken,
    freeze: CancellationToken,
}

/// The guest.
#[derive(Clone)]
pub(crate) struct Peer {
    script: Script,
    boot: fn(usize) -> &'static str,
    generation: u32,
    opened: Arc<AtomicUsize>,
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

// === impl Peer ===

impl Peer {
    /// A guest that greets by itself and answers everything else as `script` says.
    pub(crate) fn new<F>(script: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let script: Script = Arc::new(move |asked| Box::pin(script(asked)));
        Self { script, boot: |_| "boot", generation: GENERATION, opened: Arc::default(), seen: Arc::default() }
    }

    /// The same, with a boot id that depends on the connection.
    pub(crate) fn booting(mut self, boot: fn(usize) -> &'static str) -> Self {
        self.boot = boot;
        self
    }

    /// The same, of another generation.
    pub(crate) fn speaking(mut self, generation: u32) -> Self {
        self.generation = generation;
        self
    }

    pub(crate) fn guest(&self) -> Guest {
        Guest::new(Arc::new(self.clone()), None)
    }

    /// Returns the number of connections that were opened.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Returns the number of times that a route was asked, over all connections.
    pub(crate) fn times(&self, what: &str) -> usize {
        self.seen.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn stream(&self) -> ByteStream {
        let connection = self.opened.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (cut, freeze) = (CancellationToken::new(), CancellationToken::new());
        let (peer, tokens) = (self.clone(), (cut.clone(), freeze.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let (peer, (cut, freeze)) = (peer.clone(), tokens.clone());
            async move { Ok::<_, Infallible>(peer.answer(connection, request, cut, freeze).await) }
        });
        tokio::spawn(async move {
            let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(theirs), service);
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                _ = &mut serving => {}
                () = cut.cancelled() => {}
                // The stream stays open, and nobody serves it.
                () = freeze.cancelled() => std::future::pending().await,
            }
        });
        Box::new(ours)
    }

    async fn answer(
        &self,
        connection: usize,
        request: Request<Incoming>,
        cut: CancellationToken,
        freeze: CancellationToken,
    ) -> Answer {
        let what = format!("{} {}", request.method(), request.uri().path());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let again = request.headers().contains_key(AGAIN_HEADER);
        if what == "GET /v1/hello" && self.times(&format!("greeted {connection}")) == 0 {
            *self.seen.lock().unwrap().entry(format!("greeted {connection}")).or_default() += 1;
            return json(&Hello { generation: self.generation, ..hello((self.boot)(connection)) });
        }
        *self.seen.lock().unwrap().entry(what.clone()).or_default() += 1;
        // The body of a tunnel ends with the tunnel.
        if request.uri().path() != Route::Tunnel.path() {
            drop(request.into_body().collect().await);
        }
        (self.script)(Asked { connection, what, query, again, cut, freeze }).await
    }
}

#[async_trait]
impl Open for Peer {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        Ok(self.stream())
    }
}

// === impl Asked ===

impl Asked {
    /// Breaks the connection under the request.
    pub(crate) async fn cut(&self) -> Answer {
        self.cut.cancel();
        std::future::pending().await
    }

    /// Stops serving without closing anything, as a sandbox that is gone under its stream.
    pub(crate) async fn freeze(&self) -> Answer {
        self.freeze.cancel();
        std::future::pending().await
    }

    /// Breaks the connection a little later, when what has been sent is through.
    pub(crate) fn cut_after(&self) -> CancellationToken {
        self.cut.clone()
    }
}

pub(crate) fn hello(boot_id: &str) -> Hello {
    let (version, kernel) = ("1".to_owned(), "k".to_owned());
    Hello { generation: GENERATION, version, boot_id: boot_id.to_owned(), kernel, is_configured: true }
}

pub(crate) fn raw(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

pub(crate) fn json(body: &impl Serialize) -> Answer {
    raw(StatusCode::OK, serde_json::to_vec(body).unwrap())
}

pub(crate) fn refuse(code: ErrorCode) -> Answer {
    let status = StatusCode::from_u16(code.status()).unwrap();
    raw(status, serde_json::to_vec(&GuestError::new(code, "no")).unwrap())
}

pub(crate) fn streamed(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let body = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync();
    Response::new(body)
}
