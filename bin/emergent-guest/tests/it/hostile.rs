//! The attacks of a workspace that the guest must survive.

use std::time::{Duration, Instant};

use emergent_guest_proto::{
    ErrorCode, Execution, Hello,
    tools::{BashResult, ReadResult},
};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Guest, code, eventually, full, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thousand_calls_at_once_are_all_answered() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("f", "x\n");
    let reads = (0..1_000).map(|_| client.tool::<ReadResult>("read", json!({"file_path": "f"})));
    let commands = (0..200).map(|number| {
        let client = client.clone();
        async move {
            let body = json!({"command": format!("echo {number}")});
            (number, client.tool::<BashResult>("bash", body).await.unwrap())
        }
    });
    let (reads, commands) = tokio::join!(futures::future::join_all(reads), futures::future::join_all(commands));
    assert!(reads.into_iter().all(|read| matches!(read, Ok(ReadResult::Text { lines: 1, .. }))));
    for (number, result) in commands {
        assert_eq!(result.stdout, format!("{number}\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pipes_sockets_and_devices_are_never_waited_for() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("mkfifo pipe; ln -s loop loop").await;
    let _socket = std::os::unix::net::UnixListener::bind(guest.workspace().join("socket")).unwrap();
    for path in ["pipe", "socket", "/dev/null", "loop"] {
        for (tool, body) in [
            ("read", json!({"file_path": path})),
            ("edit", json!({"file_path": path, "old_string": "a", "new_string": "b"})),
            ("write", json!({"file_path": path, "content": ""})),
            ("grep", json!({"pattern": "x", "path": path})),
        ] {
            let refused = tokio::time::timeout(Duration::from_secs(5), client.tool::<Value>(tool, body)).await.unwrap();
            let refused = code(refused);
            assert!(
                matches!(refused, ErrorCode::InvalidRequest | ErrorCode::PermissionDenied),
                "{tool} {path} {refused:?}"
            );
        }
        for operation in ["content", "archive"] {
            let refused = client.get::<Value>(&format!("/v1/files/{operation}?path={path}")).await;
            assert_eq!(code(refused), ErrorCode::InvalidRequest, "{operation} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killing_children_from_inside_ends_only_those() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "victim", "program": "sleep 4711.8"})).await;
    let victim: Execution = client.get("/v1/executions/victim").await.unwrap();
    client.sh(&format!("kill -9 {}", victim.pid)).await;
    assert_eq!(client.wait("victim").await.signal.as_deref(), Some("SIGKILL"));
    let result: BashResult =
        client.tool("bash", json!({"command": format!("kill -9 {}", guest.child.id())})).await.unwrap();
    assert_eq!(result.exit_code, Some(1), "the agent may not signal the guest");
    client.get::<Hello>("/v1/hello").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fork_bomb_stays_within_its_limit_and_can_be_cancelled() {
    // The limit counts all processes of the user, on the whole machine.
    let Some(guest) = Guest::start_with(&["--nproc", "200"]).await else { return };
    let client = guest.client().await;
    guest.put("f", "x\n");
    let bomb = "bomb() { : emergent-bomb; bomb | bomb & }; bomb; while :; do sleep 0.1; done";
    client.start(json!({"execution_id": "bomb", "program": bomb})).await;
    eventually("it has grown", || std::future::ready((guest.processes("emergent-bomb").len() > 100).then_some(())))
        .await;
    let asked = Instant::now();
    client.tool::<ReadResult>("read", json!({"file_path": "f"})).await.unwrap();
    client.tool::<Value>("grep", json!({"pattern": "x"})).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10));
    client.post::<Execution>("/v1/executions/bomb/cancel", &json!({})).await.unwrap();
    assert!(guest.processes("emergent-bomb").is_empty());
    assert_eq!(client.sh("echo alive").await, "alive\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_that_vanish_in_the_middle_leave_a_working_guest() {
    let Some(guest) = Guest::start().await else { return };
    guest.put("big", vec![b'x'; 20 << 20]);
    for round in 0..20 {
        let client = guest.client().await;
        for path in ["/v1/files/content?path=big", "/v1/files/archive?path=.", "/v1/executions"] {
            let response = client.request(Method::GET, path, "").await;
            assert_eq!(response.status(), 200);
        }
        let body = json!({"command": format!("sleep 0.{round:02}")}).to_string();
        let call = request(Method::POST, "/v1/tools/bash", full(body));
        let pending = tokio::spawn(async move { client.send(call).await });
        tokio::task::yield_now().await;
        pending.abort();
    }
    let client = guest.client().await;
    let asked = Instant::now();
    assert_eq!(client.sh("echo alive").await, "alive\n");
    client.get::<Value>("/v1/files/archive?path=nope").await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(5), "archives nobody reads hold nothing up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn orphans_are_reaped() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("for i in 1 2 3 4 5; do (setsid sleep 0.1 &) ; done").await;
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", guest.child.id());
        let none = std::fs::read_to_string(path).unwrap_or_default().trim().is_empty();
        std::future::ready(none.then_some(()))
    };
    eventually("no child is left", children).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_is_too_large_is_refused() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let body = vec![b' '; 33 << 20];
    assert_eq!(code(client.call::<Value>(Method::POST, "/v1/tools/write", body).await), ErrorCode::TooLarge);
}
