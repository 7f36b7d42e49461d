//! Nothing stays behind: no process, no task, no descriptor.

use std::{process::Command, time::Duration};

use emergent_mcp::BridgeConfig;
use serde_json::json;
use tokio::runtime::Handle;

use crate::support::{Client, all_gone, bridge, modern_tool, pids, quick, until, whole};

/// Alone in its process, because descriptors are counted.
#[test]
fn sessions_that_come_and_go_leave_nothing() {
    let program = std::env::current_exe().expect("this program");
    let run = Command::new(program).args(["--exact", "leaks::rounds_of_sessions", "--ignored", "--nocapture"]).output();
    let run = run.expect("this program runs");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

#[tokio::test]
#[ignore = "run by the test above"]
async fn rounds_of_sessions() {
    // What hangs is left at once.
    let bridge = bridge(BridgeConfig { json_within: Duration::from_millis(50), ..quick() }).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut before = None;
    for round in 0..4 {
        let clients = futures::future::join_all((0..5).map(|_| Client::connect(&bridge))).await;
        for (number, client) in clients.iter().enumerate() {
            client.call("flood", json!({ "count": 50 })).await;
            drop(client.start(&json!("left"), "hang", &json!({})).await);
            if number % 2 == 0 {
                client.call("exit", json!({ "code": 1 })).await;
            }
        }
        drop(modern_tool(&bridge, &json!(1), "slow", json!({ "ms": 50_000 })).await);
        whole(modern_tool(&bridge, &json!(1), "exit", json!({ "code": 1 })).await).await;
        let left = pids(&bridge);
        for client in &clients {
            client.delete().await;
        }
        all_gone(&left).await;
        until("no child is left", || async { bridge.status().children.is_empty() && bridge.status().sessions == 0 })
            .await;
        let now = (descriptors(), tasks());
        if round == 0 {
            // The runtime's own are there after the first round.
            before = Some(now);
            continue;
        }
        let before = before.expect("the first round");
        until("descriptors and tasks are given back", || async { descriptors() <= before.0 && tasks() <= before.1 })
            .await;
    }
    bridge.shut_down(Duration::from_secs(1)).await;
    until("no task is left", || async { tasks() == 0 }).await;
}

#[tokio::test]
async fn shutting_down_ends_every_child() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    whole(modern_tool(&bridge, &json!(1), "count", json!({})).await).await;
    let before = pids(&bridge);
    assert_eq!(before.len(), 2);
    let waiting = client.start(&json!(1), "hang", &json!({})).await;
    bridge.shut_down(Duration::from_secs(3)).await;
    all_gone(&before).await;
    assert_eq!(whole(waiting).await["error"]["code"], -32603);
    let late = crate::support::post(&bridge, &[], &crate::support::initialize("late", "2025-11-25")).await;
    assert_eq!(late.status(), http::StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn dropping_the_bridge_ends_local_children() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let before = pids(&bridge);
    drop((client, bridge));
    all_gone(&before).await;
}
