//! Channels: the socket, `connect`, and the guest's own standard input and output.

use std::{
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use emergent_guest_proto::{ErrorCode, GENERATION, Hello, Usage};
use http::Method;
use serde_json::{Value, json};
use tokio::net::unix::pipe;

use crate::support::{Client, Guest, PROGRAM, code, eventually, spawn};

async fn over_pipes(stdout: impl Into<std::os::fd::OwnedFd>, stdin: impl Into<std::os::fd::OwnedFd>) -> Client {
    let output = pipe::Receiver::from_owned_fd(stdout.into()).unwrap();
    let input = pipe::Sender::from_owned_fd(stdin.into()).unwrap();
    Client::over(tokio::io::join(output, input)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_guest_says_who_it_is_and_what_is_used() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let hello: Hello = client.get("/v1/hello").await.unwrap();
    assert_eq!(hello.generation, GENERATION);
    let again: Hello = client.get("/v1/hello").await.unwrap();
    assert_eq!(hello.boot_id, again.boot_id);
    let usage: Usage = client.get("/v1/usage").await.unwrap();
    assert!(usage.disk_total_bytes > usage.disk_used_bytes && usage.processes > Some(0), "{usage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_root_may_connect_and_nobody_else_may_change_output() {
    let Some(guest) = Guest::start().await else { return };
    assert_eq!(std::fs::metadata(guest.socket()).unwrap().mode() & 0o777, 0o600);
    let client = guest.client().await;
    let attempt = "test -w \"$0\" && echo writable; test -r \"$0\" && echo readable";
    let socket = guest.socket();
    let probe = |path: &std::path::Path| attempt.replace("$0", path.to_str().unwrap());
    assert_eq!(client.sh(&format!("{} ; true", probe(&socket))).await, "");
    let execution = client.start(json!({"program": "echo hi"})).await;
    let file = execution.stdout_file.as_path().to_owned();
    assert_eq!(client.sh(&probe(&file)).await, "readable\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connect_joins_its_standard_streams_to_the_guest() {
    let Some(guest) = Guest::start().await else { return };
    let mut child = Command::new(PROGRAM)
        .args(["connect", "--socket"])
        .arg(guest.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let client = over_pipes(child.stdout.take().unwrap(), child.stdin.take().unwrap()).await;
    assert_eq!(client.sh("head -c 3000000 /dev/zero | wc -c").await.trim(), "3000000");
    // Without a caller the helper ends.
    drop(client);
    eventually("connect ends", || std::future::ready(child.try_wait().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connect_waits_for_a_guest_that_is_just_starting() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: the guest needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state/guest.sock");
    let mut child = Command::new(PROGRAM)
        .args(["connect", "--socket"])
        .arg(&socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut guest = spawn(directory.path(), &[], Stdio::null(), Stdio::null());
    let client = over_pipes(child.stdout.take().unwrap(), child.stdin.take().unwrap()).await;
    client.get::<Hello>("/v1/hello").await.unwrap();
    client.call::<Value>(Method::POST, "/v1/shutdown", "").await.unwrap();
    assert!(guest.wait().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_first_channel_is_the_guests_own_stdio_and_its_end_ends_nothing() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: the guest needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut guest = spawn(directory.path(), &["--stdio".to_owned()], Stdio::piped(), Stdio::piped());
    let client = over_pipes(guest.stdout.take().unwrap(), guest.stdin.take().unwrap()).await;
    let before: Hello = client.get("/v1/hello").await.unwrap();
    drop(client);
    let socket = directory.path().join("state/guest.sock");
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let after: Hello = Client::over(stream).await.get("/v1/hello").await.unwrap();
    assert_eq!(before.boot_id, after.boot_id);
    let pid = rustix::process::Pid::from_child(&guest);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(guest.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn shutdown_ends_executions_in_order() {
    let Some(mut guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let trapping = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    client.start(json!({"execution_id": "polite", "program": trapping})).await;
    client.start(json!({"execution_id": "deaf", "program": "trap '' TERM; while :; do sleep 0.05; done"})).await;
    let output = guest.state().join("output/polite.stdout");
    let ready = || std::future::ready(std::fs::read_to_string(&output).unwrap().contains("ready").then_some(()));
    eventually("the command runs", ready).await;
    let asked = Instant::now();
    client.call::<Value>(Method::POST, "/v1/shutdown", "").await.unwrap();
    eventually("the guest ends", || std::future::ready(guest.child.try_wait().unwrap())).await;
    assert!(asked.elapsed() < Duration::from_secs(8));
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "ready\nbye\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_guest_does_not_know_is_unsupported_and_malformed_requests_name_the_field() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    for path in ["/", "/v1/nope", "/v2/hello", "/v1/hello/x", "/v1/tools/nope", "/v1/files/nope"] {
        assert_eq!(code(client.call::<Value>(Method::POST, path, "{}").await), ErrorCode::Unsupported, "{path}");
    }
    for (tool, body, field) in [
        ("bash", json!({"command": 1}), "command"),
        ("bash", json!({"command": "x", "timeout_ms": -1}), "timeout_ms"),
        ("bash", json!({"command": "x", "timeout_ms": 86_400_001}), "timeout_ms"),
        ("bash", json!({"command": "x", "env": {"a=b": "c"}}), "env"),
        ("bash", json!({"command": ""}), "command"),
        ("bash", json!({"command": "x".repeat(131_072)}), "command"),
        ("read", json!({"file_path": "", "offset": 1}), "file_path"),
        ("read", json!({"file_path": "a", "offset": 0}), "offset"),
        ("read", json!({"file_path": "a", "limit": 100_001}), "limit"),
        ("grep", json!({"pattern": "("}), "pattern"),
        ("glob", json!({"pattern": "{"}), "pattern"),
        ("git", json!({"action": "checkout", "reference": "-f"}), "reference"),
    ] {
        let error = client.tool::<Value>(tool, body.clone()).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidRequest, Some(field)), "{tool} {body}");
    }
    let unknown = client.tool::<Value>("read", json!({"file_path": "a", "nope": 1})).await.unwrap_err();
    assert!(unknown.message.contains("nope"), "{unknown:?}");
    assert_eq!(code(client.call::<Value>(Method::POST, "/v1/tools/read", "{").await), ErrorCode::InvalidRequest);
}
