//! A guest in a temporary directory, and a client that talks to it.

use std::{
    future::Future,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use emergent_guest_proto::{AGENT_UID, ErrorCode, Execution, GuestError, Stream, frame::Frame, tools::BashResult};
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_emergent-guest");

pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// A running guest. Dropped, it is ended and all that it made removed.
pub(crate) struct Guest {
    pub(crate) child: Child,
    pub(crate) directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Guest {
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// `None`, with a word about it, where the test cannot run.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), arguments).await
    }

    /// The same in a directory.
    pub(crate) async fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: the guest needs root");
            return None;
        }
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(directory.path(), &arguments, Stdio::null(), Stdio::null());
        let guest = Self { child, directory, arguments };
        guest.client().await;
        Some(guest)
    }

    /// Kills the guest without warning and starts another in its place.
    pub(crate) async fn restart_after_kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.directory.path(), &self.arguments, Stdio::null(), Stdio::null());
        self.client().await;
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state().join("guest.sock")
    }

    /// Makes a file of the agent's.
    pub(crate) fn put(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.workspace().join(name);
        let mut missing: Vec<_> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        missing.reverse();
        for directory in missing {
            std::fs::create_dir(directory).unwrap();
            chown(directory, Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        }
        std::fs::write(&path, contents).unwrap();
        chown(&path, Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        path
    }

    /// Ids of the processes in the workspace's directory whose command line contains `text`.
    pub(crate) fn processes(&self, text: &str) -> Vec<i32> {
        let workspace = self.workspace();
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let found = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory == workspace)
                && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
        };
        pids.filter(found).collect()
    }

    pub(crate) async fn client(&self) -> Client {
        let stream = eventually("the guest listens", || async { UnixStream::connect(self.socket()).await.ok() }).await;
        Client::over(stream).await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Not being PID 1, the guest leaves behind what had been left in the background.
        for pid in self.processes("").into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

pub(crate) fn spawn(directory: &Path, arguments: &[String], stdin: Stdio, stdout: Stdio) -> Child {
    // An engine gives root its groups, and so it is here.
    Command::new("setpriv")
        .args(["--groups", "0", PROGRAM])
        .arg("serve")
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--workspace")
        .arg(directory.join("workspace"))
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .unwrap()
}

/// Polls until there is something, and fails after half a minute.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(Instant::now() < deadline, "in 30 s it did not happen that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One channel.
#[derive(Clone)]
pub(crate) struct Client(http2::SendRequest<Body>);

impl Client {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let mut sender = self.0.clone();
        sender.ready().await.unwrap();
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        self.send(request(method, path, full(body))).await
    }

    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, GuestError> {
        self.answered(self.request(method, path, body).await).await
    }

    /// Reads the body of an answer.
    pub(crate) async fn answered<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, GuestError> {
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        if status.is_success() {
            let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
            return Ok(serde_json::from_slice(&bytes).unwrap());
        }
        let error: GuestError = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(error.code.status(), status.as_u16());
        Err(error)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, GuestError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, GuestError> {
        self.call(Method::POST, path, serde_json::to_vec(body).unwrap()).await
    }

    /// Makes the sandbox somebody's workspace.
    pub(crate) async fn configure(&self, body: Value) {
        let mut whole = json!({"environment": {}, "allow_root": false});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.post::<Value>("/v1/hand-over", &whole).await.unwrap();
    }

    pub(crate) async fn tool<T: DeserializeOwned>(&self, tool: &str, body: Value) -> Result<T, GuestError> {
        self.post(&format!("/v1/tools/{tool}"), &body).await
    }

    /// Runs a command that must exit with 0.
    pub(crate) async fn sh(&self, command: &str) -> String {
        let result: BashResult = self.tool("bash", json!({"command": command})).await.unwrap();
        assert_eq!(result.exit_code, Some(0), "{result:?}");
        result.stdout
    }

    pub(crate) async fn start(&self, body: Value) -> Execution {
        self.post("/v1/executions", &body).await.unwrap()
    }

    pub(crate) async fn wait(&self, id: &str) -> BashResult {
        self.get(&format!("/v1/executions/{id}/wait")).await.unwrap()
    }

    /// Frames as they come.
    pub(crate) async fn output(&self, id: &str, query: &str) -> futures::stream::BoxStream<'static, Frame> {
        let response = self.request(Method::GET, &format!("/v1/executions/{id}/output?{query}"), "").await;
        assert_eq!(response.status(), 200);
        let body = response.into_body();
        Box::pin(futures::stream::unfold((body, BytesMut::new()), |(mut body, mut buffer)| async {
            loop {
                if let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    return Some((frame, (body, buffer)));
                }
                let data = body.frame().await?.unwrap().into_data().unwrap();
                buffer.extend_from_slice(&data);
            }
        }))
    }

    /// All frames, put together.
    pub(crate) async fn collect(&self, id: &str, query: &str) -> Collected {
        let mut collected = Collected::default();
        let mut frames = self.output(id, query).await;
        while let Some(frame) = frames.next().await {
            assert!(collected.status.is_none(), "the status is the last frame");
            match frame {
                Frame::Data { stream, offset, bytes } => {
                    let (first, all) = match stream {
                        Stream::Stdout => (&mut collected.stdout_from, &mut collected.stdout),
                        Stream::Stderr => (&mut collected.stderr_from, &mut collected.stderr),
                    };
                    let first = *first.get_or_insert(offset);
                    assert_eq!(offset, first + all.len() as u64, "no byte is missing or doubled");
                    all.extend_from_slice(&bytes);
                }
                Frame::Status(status) => collected.status = Some(*status),
                Frame::KeepAlive => {}
            }
        }
        collected
    }
}

/// The output of an execution.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) stdout_from: Option<u64>,
    pub(crate) stderr_from: Option<u64>,
    pub(crate) status: Option<Execution>,
}

pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(format!("http://guest{path}")).body(body).unwrap()
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, GuestError>) -> ErrorCode {
    result.unwrap_err().code
}
