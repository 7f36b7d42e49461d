//! A guest of a few lines: it greets, is handed over, and runs `sync`.

use std::convert::Infallible;

use emergent_guest_proto::{ExecutionId, GENERATION, Hello, Outcome, routes, tools::BashResult};
use emergent_provider::ByteStream;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Serves one more connection.
pub(crate) fn connect() -> ByteStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let serve = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
        // The client goes away whenever it likes.
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(ours), serve).await.ok();
    });
    Box::new(theirs)
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        routes::HELLO | routes::RESTORED => json(&Hello {
            generation: GENERATION,
            version: "0".into(),
            boot_id: "boot".into(),
            kernel: "none".into(),
            handed_over: true,
        }),
        routes::BASH => json(&BashResult {
            execution_id: ExecutionId::new("one").unwrap(),
            stdout: "out\n".into(),
            stderr: String::new(),
            exit_code: Some(0),
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

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    Response::new(Full::new(serde_json::to_vec(value).unwrap().into()))
}
