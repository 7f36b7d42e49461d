//! Settings that cannot be used stop the start, and all of them are named.

use crate::harness::{assert_snapshot, emergent, run};

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let ended = run(emergent(&["serve"]).envs([
        ("WORKSPACE_MAX_CONCURENT", "3"),
        ("EMERGENT_COLOUR", "red"),
        ("WORKSPACE_DEFAULT_MEMORY", "4X"),
        ("ENABLE_AGENT_WORKSPACES", "yes"),
        ("EMERGENT_LISTEN", "0.0.0.0:7070"),
        ("GITHUB_APP_ENCRYPTION_KEY", "hunter2"),
        ("EMERGENT_CONFIG", "/does/not/exist.toml"),
    ]));
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""));
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    assert_snapshot("settings-refused.txt", &ended.stderr);
}

#[test]
fn an_address_that_is_taken_is_said_before_anything_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let ended = run(emergent(&["serve", "--listen", &address, "--data-dir"]).arg(directory.path()));
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("set EMERGENT_LISTEN to another address"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_guest_binary_is_said_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let mut serve = emergent(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    let ended = run(serve
        .arg(directory.path())
        .envs([("ENABLE_AGENT_WORKSPACES", "true"), ("EMERGENT_GUEST_PATH", "/nothing")]));
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("/nothing is not there; build it with `make build`"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
