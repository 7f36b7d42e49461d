//! Changes over channels that break at every point: each happens once or never, the answer says which, and nothing
//! more comes of it.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_guest_client::{Guest as GuestClient, GuestCallError, Open, new_call_id};
use emergent_guest_proto::{
    CallId, CallOutcome, ErrorCode, GuestPath, RunAs,
    files::{FileInfo, RemoveRequest, UploadQuery},
    tools::{EditRequest, GitAction, GitRequest, GitResult, WriteRequest},
};
use emergent_provider::{ByteStream, ChannelError};
use futures::{FutureExt as _, channel::mpsc, stream};
use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::UnixStream,
};

use crate::support::{Client, Guest, code, eventually, full, request};

/// The direction in which the bytes of a channel are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToGuest,
    FromGuest,
}

/// Channels to a guest, the first of which breaks after so many bytes. The guest is not told of the break.
#[derive(Clone)]
struct Breaking {
    socket: PathBuf,
    after: usize,
    way: Way,
    opened: Arc<AtomicBool>,
    broken: Arc<Mutex<Option<Remains>>>,
}

/// The remains of a channel that has broken: the guest's end, and the bytes that the guest was not given.
struct Remains {
    guest: UnixStream,
    late: Vec<u8>,
}

// === impl Breaking ===

#[async_trait]
impl Open for Breaking {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let mut outer = UnixStream::connect(&self.socket).await.map_err(|_| ChannelError::NotRunning)?;
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let breaks = !self.opened.swap(true, Ordering::SeqCst);
        let wire = self.clone();
        tokio::spawn(async move {
            if breaks {
                wire.relay(outer, far).await;
            } else {
                drop(tokio::io::copy_bidirectional(&mut outer, &mut far).await);
            }
        });
        Ok(Box::new(near))
    }
}

impl Breaking {
    fn new(guest: &Guest, way: Way, after: usize) -> Self {
        let (opened, broken) = (Arc::default(), Arc::default());
        Self { socket: guest.socket(), after, way, opened, broken }
    }

    /// Passes bytes on until the channel breaks.
    async fn relay(&self, mut guest: UnixStream, mut client: DuplexStream) {
        let (mut to_guest, mut to_client) = ([0; 4096], [0; 4096]);
        let mut left = self.after;
        loop {
            let (way, count) = tokio::select! {
                read = client.read(&mut to_guest) => (Way::ToGuest, read.unwrap_or(0)),
                read = guest.read(&mut to_client) => (Way::FromGuest, read.unwrap_or(0)),
            };
            if count == 0 {
                return;
            }
            let passed = if way == self.way { count.min(left) } else { count };
            match way {
                Way::ToGuest => guest.write_all(&to_guest[..passed]).await.unwrap(),
                // The client may be gone.
                Way::FromGuest => drop(client.write_all(&to_client[..passed]).await),
            }
            if way == self.way {
                left -= passed;
            }
            if passed < count {
                let mut late = if way == Way::ToGuest { to_guest[passed..count].to_vec() } else { Vec::new() };
                while let Some(Ok(more @ 1..)) = client.read(&mut to_guest).now_or_never() {
                    late.extend_from_slice(&to_guest[..more]);
                }
                *self.broken.lock().unwrap() = Some(Remains { guest, late });
                return;
            }
        }
    }

    /// Gives the guest what it was not given before, and waits until it has done with it. False: the channel never
    /// broke.
    async fn deliver(&self, call: &CallId) -> bool {
        let Some(Remains { mut guest, late }) = self.broken.lock().unwrap().take() else { return false };
        drop(guest.write_all(&late).await);
        drop(guest.shutdown().await);
        drop(guest.read_to_end(&mut Vec::new()).await);
        let whole = Client::over(UnixStream::connect(&self.socket).await.unwrap()).await;
        whole.get::<CallOutcome>(&format!("/v1/calls/{call}?wait=true")).await.unwrap();
        true
    }
}

/// Does `change` over channels that break after 0, `step`, … bytes until one does not; then checks that the rest, when
/// it comes late, does nothing to what `later` has made.
async fn at_every_break(
    guest: &Guest,
    step: usize,
    change: impl AsyncFn(GuestClient, &CallId, usize),
    later: impl AsyncFn() -> String,
    state: impl AsyncFn() -> String,
) {
    for way in [Way::ToGuest, Way::FromGuest] {
        for after in (0..).step_by(step) {
            let (wire, call) = (Breaking::new(guest, way, after), new_call_id());
            let client = GuestClient::new(Arc::new(wire.clone()), None);
            change(client, &call, after).await;
            let left = later().await;
            let broke = wire.deliver(&call).await;
            assert_eq!(state().await, left, "a channel that broke after {after} bytes {way:?}");
            if !broke {
                assert!(after > 100, "nothing was sent");
                break;
            }
        }
    }
}

fn path(text: &str) -> GuestPath {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_happens_once_wherever_its_channel_breaks() {
    let Some(guest) = Guest::start().await else { return };
    let file = guest.put("f", "");
    let write = async |client: GuestClient, call: &CallId, after: usize| {
        let content = format!("written after {after}");
        let request = WriteRequest { file_path: path("f"), content: content.clone(), expected_sha256: None };
        client.write(call, &request).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    };
    let state = async || fs::read_to_string(&file).unwrap();
    let later = async || {
        fs::write(&file, "later").unwrap();
        state().await
    };
    at_every_break(&guest, 7, write, later, state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_and_a_removal_happen_once_wherever_their_channel_breaks() {
    let Some(guest) = Guest::start().await else { return };
    let file = guest.put("f", "one");
    let state = async || fs::read_to_string(&file).unwrap_or_default();
    let later = async || {
        guest.put("f", "one");
        state().await
    };
    let edit = async |client: GuestClient, call: &CallId, _| {
        let (old_string, new_string) = ("one".to_owned(), "one and one".to_owned());
        let request = EditRequest { file_path: path("f"), old_string, new_string, replace_all: false };
        assert_eq!(client.edit(call, &request).await.unwrap().replacements, 1);
        assert_eq!(state().await, "one and one");
    };
    at_every_break(&guest, 13, edit, later, state).await;
    let remove = async |client: GuestClient, call: &CallId, _| {
        client.remove(call, &RemoveRequest { path: path("f"), recursive: false }).await.unwrap();
        assert!(!file.exists());
    };
    at_every_break(&guest, 13, remove, later, state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_happens_once_wherever_its_channel_breaks() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    if client.sh("git init -q -b main || echo none").await.contains("none") {
        return eprintln!("skipped: this machine has no git");
    }
    let log = async || -> Vec<String> {
        let GitResult::Log { commits } = client.tool("git", json!({"action": "log"})).await.unwrap() else { panic!() };
        commits.into_iter().map(|commit| commit.subject).collect()
    };
    let commit = async |wired: GuestClient, call: &CallId, after: usize| {
        guest.put("f", call.as_str());
        let before = log().await.len();
        let message = format!("after {after}");
        let action = GitAction::Commit { message: message.clone(), files: None };
        wired.git(call, &GitRequest { path: None, action }).await.unwrap();
        let after = log().await;
        assert_eq!((after.len(), after.first()), (before + 1, Some(&message)));
    };
    let later = async || {
        guest.put("f", "not yet committed");
        log().await.join(",")
    };
    at_every_break(&guest, 61, commit, later, async || log().await.join(",")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_has_happened_or_not_as_its_answer_says_wherever_its_channel_breaks() {
    let Some(guest) = Guest::start().await else { return };
    let file = guest.put("f", "");
    let upload = async |client: GuestClient, call: &CallId, after: usize| {
        fs::write(&file, "before").unwrap();
        let query = UploadQuery { path: path("f"), mode: None, user: RunAs::Agent, expected_sha256: None };
        let body = ["uploaded ", "after ", &after.to_string()].map(|part| Ok(Bytes::from(part.to_owned())));
        let held = match client.upload(call, &query, stream::iter(body)).await {
            Ok(_) => format!("uploaded after {after}"),
            Err(GuestCallError::Unreachable(_)) => "before".to_owned(),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(fs::read_to_string(&file).unwrap(), held, "after {after}");
    };
    let state = async || fs::read_to_string(&file).unwrap();
    let later = async || {
        fs::write(&file, "later").unwrap();
        state().await
    };
    at_every_break(&guest, 7, upload, later, state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_is_running_and_then_done_and_its_name_is_taken() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let outcome = async || client.get::<CallOutcome>("/v1/calls/c").await.unwrap();
    let (tar, body) = mpsc::unbounded::<std::io::Result<hyper::body::Frame<Bytes>>>();
    let mut unpack = request(
        Method::PUT,
        "/v1/files/archive?path=d",
        http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(body)),
    );
    unpack.headers_mut().insert("x-emergent-call", "c".parse().unwrap());
    let caller = client.clone();
    let unpacking = tokio::spawn(async move { caller.send(unpack).await.status() });
    let begun = guest.workspace().join("d");
    eventually("the call begins", || async { begun.exists().then_some(()) }).await;
    assert_eq!(outcome().await, CallOutcome::Running);
    tar.unbounded_send(Ok(hyper::body::Frame::data(Bytes::from(vec![0; 1024])))).unwrap();
    drop(tar);
    assert_eq!(unpacking.await.unwrap(), 204);
    assert_eq!(outcome().await, CallOutcome::Done { answer: Value::Null });
    assert_eq!(code(named(&client, "c").await), ErrorCode::CallExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_that_was_asked_for_before_it_came_is_not_done() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let asked: CallOutcome = client.get("/v1/calls/c").await.unwrap();
    assert!(matches!(asked, CallOutcome::NotBegun { .. }), "{asked:?}");
    assert_eq!(code(named(&client, "c").await), ErrorCode::CallExists);
    assert!(!guest.workspace().join("made").exists());
    named(&client, "d").await.unwrap();
    assert!(guest.workspace().join("made").exists());
    let refused = client.get::<CallOutcome>("/v1/calls/no%20id").await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
}

/// Makes a directory under this name.
async fn named(client: &Client, call: &str) -> Result<FileInfo, emergent_guest_proto::GuestError> {
    let mut request = request(Method::POST, "/v1/files/mkdir", full(json!({"path": "made"}).to_string()));
    request.headers_mut().insert("x-emergent-call", call.parse().unwrap());
    client.answered(client.send(request).await).await
}
