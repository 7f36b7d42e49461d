//! A guest of a few lines: it greets, and has one execution whose output a test writes.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use emergent_guest_proto::{
    Execution, ExecutionId, ExecutionState, GENERATION, Hello, LastEnd, Outcome, Route, Stream as OutputStream, Usage,
    execution::ExecutionList, frame::Frame, tools::BashResult,
};
use emergent_provider::ByteStream;
use emergent_types::WorkspaceId;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame as BodyFrame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{sync::watch, task::JoinSet};

use crate::gates::Gates;

/// The gate before a guest's greeting.
pub(crate) const GREETS: &str = "guest.hello";
/// The gate before a guest takes what belongs to the workspace.
pub(crate) const TAKES_OVER: &str = "guest.hand_over";
/// The id of the one execution.
pub(crate) const EXECUTION: &str = "one";

/// A guest. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeGuest {
    output: Arc<watch::Sender<Output>>,
    connections: Arc<std::sync::Mutex<JoinSet<()>>>,
    /// There once it has been given what belongs to the workspace: it outlives the process.
    claimed: PathBuf,
    workspace: WorkspaceId,
    gates: Gates,
    refuses_hand_over: Arc<std::sync::Mutex<bool>>,
    usage: Arc<std::sync::Mutex<Option<Usage>>>,
    last_end: Arc<std::sync::Mutex<Option<LastEnd>>>,
}

#[derive(Clone, Default)]
struct Output {
    written: Vec<u8>,
    ended: bool,
    runs: bool,
    starts: u32,
}

impl FakeGuest {
    /// A guest that keeps its one mark at this path, and is held at these gates.
    pub(crate) fn kept_in(claimed: PathBuf, workspace: WorkspaceId, gates: Gates) -> Self {
        std::fs::create_dir_all(claimed.parent().unwrap()).unwrap();
        let (output, connections, usage) = (Arc::default(), Arc::default(), Arc::default());
        let (last_end, refuses_hand_over) = (Arc::default(), Arc::default());
        Self { output, connections, usage, last_end, refuses_hand_over, claimed, workspace, gates }
    }

    /// Serves one more connection.
    pub(crate) fn connect(&self) -> ByteStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let guest = self.clone();
        self.connections.lock().unwrap().spawn(async move {
            let serve = service_fn(move |request| {
                let guest = guest.clone();
                async move {
                    if request.uri().path() == Route::Hello.path() {
                        guest.gates.pass(guest.workspace, GREETS).await;
                    }
                    if request.uri().path() == Route::Configure.path() {
                        guest.gates.pass(guest.workspace, TAKES_OVER).await;
                    }
                    if request.uri().path() == Route::Usage.path() {
                        return Ok(guest.usage().await);
                    }
                    if request.uri().path() == Route::LastEnd.path() {
                        return Ok(guest.take_last_end(request).await);
                    }
                    let wait = Route::WaitForExecution.path_of(&EXECUTION);
                    if request.uri().path() == Route::Bash.path() || request.uri().path() == wait {
                        return Ok(guest.result(request.uri().path() == Route::Bash.path()).await);
                    }
                    Ok::<_, Infallible>(guest.answer(&request))
                }
            });
            // The client goes away whenever it likes.
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(ours), serve).await.ok();
        });
        Box::new(theirs)
    }

    /// Breaks all connections, as an engine that loses its streams does.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Whether it takes what belongs to the workspace.
    pub(crate) fn refuse_hand_over(&self, refuses: bool) {
        *self.refuses_hand_over.lock().unwrap() = refuses;
    }

    /// Whether it has been given what belongs to the workspace.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.claimed.exists()
    }

    /// Ends with its sandbox.
    pub(crate) fn restart(&self) {
        self.cut();
    }

    /// Returns the reason of the workspace's last end, as the guest was told it.
    pub(crate) fn last_end(&self) -> Option<String> {
        self.last_end.lock().unwrap().clone().map(|last_end| last_end.reason)
    }

    async fn take_last_end(&self, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        *self.last_end.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
        let mut response = Response::new(Full::default().boxed_unsync());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    /// Sets the usage that the guest tells from now on; until then it does not answer such a question.
    pub(crate) fn uses(&self, usage: Usage) {
        *self.usage.lock().unwrap() = Some(usage);
    }

    async fn usage(&self) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let usage = self.usage.lock().unwrap().clone();
        match usage {
            Some(usage) => Response::new(Full::new(serde_json::to_vec(&usage).unwrap().into()).boxed_unsync()),
            None => std::future::pending().await,
        }
    }

    /// The execution's result, when it has ended.
    async fn result(&self, is_start: bool) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        if is_start {
            self.output.send_modify(|output| (output.runs, output.starts) = (true, output.starts + 1));
        }
        let mut output = self.output.subscribe();
        let written = output.wait_for(|output| output.ended).await.unwrap().written.clone();
        let result = BashResult {
            execution_id: ExecutionId::new(EXECUTION).unwrap(),
            stdout: String::from_utf8(written).unwrap(),
            stderr: String::new(),
            exit_code: Some(0),
            signal: None,
            outcome: Outcome::Exited,
            reason: None,
            duration_ms: 1,
            timed_out: false,
            truncated: false,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_file: None,
            stderr_file: None,
        };
        Response::new(Full::new(serde_json::to_vec(&result).unwrap().into()).boxed_unsync())
    }

    /// Returns the number of times that the execution was started.
    pub(crate) fn starts(&self) -> u32 {
        self.output.borrow().starts
    }

    /// The execution writes to its standard output.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.output.send_modify(|output| output.written.extend_from_slice(bytes));
    }

    /// The execution runs.
    pub(crate) fn run(&self) {
        self.output.send_modify(|output| output.runs = true);
    }

    /// The execution ends.
    pub(crate) fn end(&self) {
        self.output.send_modify(|output| (output.ended, output.runs) = (true, false));
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let id = ExecutionId::new(EXECUTION).unwrap();
        let path = request.uri().path();
        if path == Route::Hello.path() {
            let hello = Hello {
                generation: GENERATION,
                version: "0".into(),
                boot_id: "boot".into(),
                kernel: "none".into(),
                is_configured: self.is_handed_over(),
            };
            let body = Full::new(serde_json::to_vec(&hello).unwrap().into());
            return Response::new(body.boxed_unsync());
        }
        if path == Route::Configure.path() {
            let mut response = Response::new(Full::default().boxed_unsync());
            let refuses = *self.refuses_hand_over.lock().unwrap();
            if !refuses {
                std::fs::write(&self.claimed, "").unwrap();
            }
            let status = if refuses { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT };
            *response.status_mut() = status;
            return response;
        }
        if path == Route::ListExecutions.path() {
            let running = self.output.borrow().runs.then(|| Execution { state: ExecutionState::Running, ..ended(0) });
            let list = ExecutionList { executions: running.into_iter().collect() };
            return Response::new(Full::new(serde_json::to_vec(&list).unwrap().into()).boxed_unsync());
        }
        if path == Route::ExecutionOutput.path_of(&id) {
            let query = request.uri().query().unwrap_or_default();
            let offset = query.split('&').find_map(|pair| pair.strip_prefix("stdout=")).unwrap_or("0");
            return Response::new(self.follow(offset.parse().unwrap()));
        }
        let mut response = Response::new(Full::default().boxed_unsync());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }

    fn follow(&self, offset: usize) -> UnsyncBoxBody<Bytes, Infallible> {
        let state = (self.output.subscribe(), offset, false);
        let frames = stream::unfold(state, |(mut output, offset, last)| async move {
            if last {
                return None;
            }
            let now = output.wait_for(|output| output.ended || output.written.len() > offset).await.unwrap().clone();
            let (frame, next, last) = match now.written.get(offset..).filter(|new| !new.is_empty()) {
                Some(new) => {
                    let bytes = Bytes::copy_from_slice(&new[..new.len().min(7)]);
                    let next = offset + bytes.len();
                    (Frame::Data { stream: OutputStream::Stdout, offset: offset as u64, bytes }, next, false)
                }
                None => (Frame::Status(Box::new(ended(offset))), offset, true),
            };
            Some((Ok(BodyFrame::data(frame.encode().unwrap())), (output, next, last)))
        });
        StreamBody::new(frames.boxed()).boxed_unsync()
    }
}

fn ended(written: usize) -> Execution {
    Execution {
        execution_id: ExecutionId::new(EXECUTION).unwrap(),
        command: "write".into(),
        pid: 2,
        started_at_ms: 0,
        state: ExecutionState::Ended {
            outcome: Outcome::Exited,
            exit_code: Some(0),
            signal: None,
            duration_ms: 1,
            reason: None,
        },
        stdout_bytes: written as u64,
        stderr_bytes: 0,
        dropped_bytes: 0,
        stdout_file: "/out".parse().unwrap(),
        stderr_file: "/err".parse().unwrap(),
    }
}
