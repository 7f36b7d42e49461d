//! The stream of an execution's output.

use std::time::Duration;

use emergent_guest_proto::{Execution, ExecutionState, frame::Frame};
use futures::StreamExt as _;
use serde_json::json;

use crate::support::{Guest, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn following_shows_every_byte_as_it_comes_and_ends_with_the_status() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let program = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.1; done; exit 2";
    client.start(json!({"execution_id": "x", "program": program})).await;
    let collected = client.collect("x", "stdout=0&stderr=0&follow=true").await;
    assert_eq!(collected.stdout, b"out1\nout2\nout3\n");
    assert_eq!(collected.stderr, b"err1\nerr2\nerr3\n");
    let Some(Execution { state: ExecutionState::Ended { exit_code, .. }, .. }) = collected.status else { panic!() };
    assert_eq!(exit_code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reading_goes_on_at_any_offset() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "x", "program": "seq 200000"})).await;
    let whole = client.collect("x", "stdout=0&follow=true").await.stdout;
    assert_eq!(whole.len(), 1_288_895);
    let rest = client.collect("x", "stdout=1000000").await;
    assert_eq!((rest.stdout_from, rest.stdout.as_slice()), (Some(1_000_000), &whole[1_000_000..]));
    assert!(rest.stderr.is_empty());
    let beyond = client.collect("x", "stdout=99999999&stderr=5&follow=true").await;
    assert!(beyond.stdout.is_empty() && beyond.status.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_following_a_running_execution_is_shown_as_it_is() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "x", "program": "echo begun; sleep 4711.6"})).await;
    eventually("it has begun", || async { (!client.collect("x", "stdout=0").await.stdout.is_empty()).then_some(()) })
        .await;
    let collected = client.collect("x", "stdout=0").await;
    assert_eq!(collected.status.unwrap().state, ExecutionState::Running);
    client.post::<Execution>("/v1/executions/x/cancel", &json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_silent_execution_keeps_the_stream_alive() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "x", "program": "sleep 4711.7"})).await;
    let mut frames = client.output("x", "stdout=0&follow=true").await;
    let frame = tokio::time::timeout(Duration::from_secs(8), frames.next()).await.unwrap();
    assert_eq!(frame, Some(Frame::KeepAlive));
    client.post::<Execution>("/v1/executions/x/cancel", &json!({})).await.unwrap();
    assert!(matches!(frames.next().await, Some(Frame::Status(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_vanishes_costs_nothing() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "x", "program": "yes | head -c 20000000; echo end"})).await;
    for _ in 0..50 {
        let mut frames = guest.client().await.output("x", "stdout=0&follow=true").await;
        frames.next().await.unwrap();
    }
    assert_eq!(client.wait("x").await.stdout_bytes, 20_000_004);
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", guest.child.id())).unwrap().filter_map(Result::ok);
        let logs =
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).filter(|path| path.ends_with("x.stdout"));
        std::future::ready((logs.count() == 0).then_some(()))
    };
    eventually("no log is open any more", open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn beyond_the_budget_the_oldest_finished_logs_go_first() {
    let Some(guest) = Guest::start_with(&["--output-budget", "3000000"]).await else { return };
    let client = guest.client().await;
    for id in ["old", "new"] {
        client.start(json!({"execution_id": id, "program": "head -c 2000000 /dev/urandom"})).await;
        client.wait(id).await;
    }
    let old: Execution = eventually("the old log is dropped in part", || async {
        client.get::<Execution>("/v1/executions/old").await.ok().filter(|old| old.dropped_bytes > 0)
    })
    .await;
    assert!((1_000_000..1_200_000).contains(&old.dropped_bytes) && old.stdout_bytes == 2_000_000, "{old:?}");
    let collected = client.collect("old", "stdout=0&follow=true").await;
    assert_eq!(collected.stdout_from, Some(old.dropped_bytes));
    assert_eq!(collected.stdout.len() as u64, 2_000_000 - old.dropped_bytes);
    let answer = client.wait("old").await;
    assert!(answer.truncated && answer.stdout.contains("what is still kept is in"));
    assert_eq!(client.collect("new", "stdout=0").await.stdout.len(), 2_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_running_log_beyond_the_budget_loses_its_beginning_and_keeps_its_offsets() {
    let Some(guest) = Guest::start_with(&["--output-budget", "1000000"]).await else { return };
    let client = guest.client().await;
    let program = "seq 1000000; while [ ! -e go ]; do sleep 0.02; done; echo end";
    client.start(json!({"execution_id": "x", "program": program})).await;
    let all: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
    eventually("its beginning is dropped", || async {
        let execution: Execution = client.get("/v1/executions/x").await.unwrap();
        (execution.stdout_bytes == all.len() as u64 && execution.dropped_bytes > 5_000_000).then_some(())
    })
    .await;
    guest.put("go", "");
    let collected = client.collect("x", "stdout=0&follow=true").await;
    let from = collected.stdout_from.unwrap();
    assert!(from > 0 && collected.stdout.len() <= 1_100_000, "{from} {}", collected.stdout.len());
    let whole = all + "end\n";
    assert_eq!(collected.stdout, whole.as_bytes()[usize::try_from(from).unwrap()..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_longer_kept_is_known_after_a_restart() {
    let Some(mut guest) = Guest::start_with(&["--output-budget", "1000000"]).await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "ended", "program": "seq 300000"})).await;
    client.wait("ended").await;
    client.start(json!({"execution_id": "running", "program": "seq 300000; sleep 1000"})).await;
    eventually("the beginnings are dropped", || async {
        let [ended, running] = ["ended", "running"].map(|id| format!("/v1/executions/{id}"));
        let (ended, running): (Execution, Execution) =
            (client.get(&ended).await.unwrap(), client.get(&running).await.unwrap());
        let written = running.stdout_bytes == 1_988_895;
        (written && ended.dropped_bytes > 500_000 && running.dropped_bytes > 500_000).then_some(())
    })
    .await;
    let before: Execution = client.get("/v1/executions/running").await.unwrap();
    guest.restart_after_kill().await;
    let client = guest.client().await;
    for id in ["ended", "running"] {
        let after: Execution = client.get(&format!("/v1/executions/{id}")).await.unwrap();
        assert!(after.dropped_bytes >= if id == "running" { before.dropped_bytes } else { 500_000 }, "{after:?}");
        let collected = client.collect(id, "stdout=0").await;
        assert!(!collected.stdout.contains(&0), "the hole is sent as output");
        assert_eq!(collected.stdout_from.unwrap_or(after.stdout_bytes), after.dropped_bytes);
        assert!(!client.wait(id).await.stdout.contains('\0'));
    }
}
