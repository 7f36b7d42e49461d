//! Firecracker's control socket: HTTP with JSON, one connection for each request.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use crate::{VmmError, VmmKind, error::Cause};

/// The time that an answer may take. Writing a large machine's memory takes longest.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest answer.
const LONGEST: usize = 1 << 20;

/// The control socket of one machine.
#[derive(Debug, Clone)]
pub(super) struct Api {
    socket: PathBuf,
}

impl Api {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for the monitor's description of itself.
    pub(super) async fn describe(&self) -> Result<Value, VmmError> {
        self.ask("say how the machine is", Method::GET, "/", None).await
    }

    pub(super) async fn put(&self, action: &'static str, path: &str, body: Value) -> Result<(), VmmError> {
        self.ask(action, Method::PUT, path, Some(body)).await.map(drop)
    }

    pub(super) async fn patch(&self, action: &'static str, path: &str, body: Value) -> Result<(), VmmError> {
        self.ask(action, Method::PATCH, path, Some(body)).await.map(drop)
    }

    async fn ask(&self, action: &'static str, how: Method, path: &str, body: Option<Value>) -> Result<Value, VmmError> {
        let answered = timeout(PATIENCE, self.exchange(how, path, body)).await;
        let (status, text) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(VmmError::Silent { vmm: VmmKind::Firecracker, source }),
            Err(_) => {
                let source = io::Error::from(io::ErrorKind::TimedOut).into();
                return Err(VmmError::Silent { vmm: VmmKind::Firecracker, source });
            }
        };
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.get("fault_message").and_then(Value::as_str).unwrap_or("it does not say why");
        Err(VmmError::Refused { vmm: VmmKind::Firecracker, action, message: message.to_owned() })
    }

    async fn exchange(
        &self,
        how: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(hyper::StatusCode, Bytes), Cause> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(how).uri(path).header("host", "localhost");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(text)))?;
        let asking = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST).collect().await?;
            Ok::<_, Cause>((status, body.to_bytes()))
        };
        // The connection ends with the answer, and makes no progress by itself.
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            ended = connection => {
                ended?;
                asking.await
            }
        }
    }
}
