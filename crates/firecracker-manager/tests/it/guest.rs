//! A guest of a few lines: it greets, takes the hand-over and the time, runs `sync`, and keeps one file.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use emergent_guest_proto::{
    ExecutionId, GENERATION, GuestPath, Hello, Outcome, Route,
    files::{FileInfo, FileKind, FileList},
    tools::BashResult,
};
use emergent_provider::ByteStream;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// The machine that a guest is in.
pub(crate) trait Inside: Send + Sync + 'static {
    /// Notes that the guest was given the time.
    fn is_told_the_time(&self);
    /// Returns the exit code of the guest's `sync`.
    fn sync(&self) -> i32;
}

/// Serves one more connection.
pub(crate) fn connect(machine: impl Inside) -> ByteStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let file = Arc::new(Mutex::new(Bytes::new()));
        let machine = Arc::new(machine);
        let serve = service_fn(move |request| {
            let (file, machine) = (Arc::clone(&file), Arc::clone(&machine));
            async move { Ok::<_, Infallible>(with_file(&file, request, &*machine).await) }
        });
        // The client goes away whenever it likes.
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(ours), serve).await.ok();
    });
    Box::new(theirs)
}

/// Answers requests for the one file, which is at every path.
async fn with_file(file: &Mutex<Bytes>, request: Request<Incoming>, machine: &impl Inside) -> Response<Full<Bytes>> {
    let info = |size: usize| FileInfo {
        path: GuestPath::parse("/workspace/a").unwrap(),
        kind: FileKind::File,
        size: size as u64,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        modified_at_ms: 0,
        target: None,
    };
    match route(&request) {
        Some(Route::Upload) => match request.into_body().collect().await {
            Ok(body) => {
                *file.lock().unwrap() = body.to_bytes();
                json(&info(file.lock().unwrap().len()))
            }
            Err(_) => Response::builder().status(StatusCode::BAD_REQUEST).body(Full::default()).unwrap(),
        },
        Some(Route::Download) => Response::new(Full::new(file.lock().unwrap().clone())),
        Some(Route::ListFiles) => {
            let directory = FileInfo { kind: FileKind::Directory, ..info(0) };
            json(&FileList { entries: vec![directory, info(file.lock().unwrap().len())], truncated: false })
        }
        _ => answer(&request, machine),
    }
}

fn answer(request: &Request<Incoming>, machine: &impl Inside) -> Response<Full<Bytes>> {
    if route(request) == Some(Route::Restored) {
        machine.is_told_the_time();
    }
    match route(request) {
        Some(Route::Hello | Route::Restored) => json(&Hello {
            generation: GENERATION,
            version: "0".into(),
            boot_id: "boot".into(),
            kernel: "none".into(),
            is_configured: true,
        }),
        Some(Route::Bash) => json(&BashResult {
            execution_id: ExecutionId::new("one").unwrap(),
            stdout: "out\n".into(),
            stderr: String::new(),
            exit_code: Some(machine.sync()),
            signal: None,
            outcome: Outcome::Exited,
            reason: None,
            duration_ms: 1,
            timed_out: false,
            truncated: false,
            stdout_bytes: 4,
            stderr_bytes: 0,
            stdout_file: None,
            stderr_file: None,
        }),
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    }
}

fn route(request: &Request<Incoming>) -> Option<Route> {
    let is_meant = |route: &Route| route.method() == *request.method() && route.path() == request.uri().path();
    Route::ALL.iter().copied().find(is_meant)
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    Response::new(Full::new(serde_json::to_vec(value).unwrap().into()))
}
