//! One child for all sessions.

use emergent_mcp::{BridgeConfig, Sharing};
use serde_json::json;

use crate::support::{Client, Events, bridge, pids, quick, until, whole};

fn shared() -> BridgeConfig {
    BridgeConfig { sharing: Sharing::Shared, ..quick() }
}

#[tokio::test]
async fn sessions_share_state_and_keep_their_ids_and_tokens() {
    let bridge = bridge(shared()).await;
    let (a, b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    assert_eq!(pids(&bridge).len(), 1);
    assert_eq!(a.text("count", json!({})).await, "1");
    assert_eq!(b.text("count", json!({})).await, "2");
    let (one, two) = (json!(77), json!({ "ms": 200 }));
    let (of_a, of_b) = tokio::join!(a.start(&one, "slow", &two), b.start(&one, "slow", &two));
    for answer in [of_a, of_b] {
        let mut events = Events::of(answer);
        assert_eq!(events.message().await.expect("progress")["params"]["progressToken"], 77);
        assert_eq!(events.message().await.expect("an answer")["id"], 77);
        assert_eq!(events.message().await, None);
    }
}

#[tokio::test]
async fn logs_go_to_the_only_one_who_waits_or_to_nobody() {
    let bridge = bridge(shared()).await;
    let (a, b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let mut of_b = b.events(None).await;
    let mut events = Events::of(a.start(&json!(1), "test_tool_with_logging", &json!({})).await);
    let mut logs = 0;
    while let Some(message) = events.message().await {
        logs += usize::from(message["method"] == "notifications/message");
    }
    assert_eq!(logs, 3);
    // With two that wait nobody knows whose logs they are.
    let slow = b.start(&json!(2), "slow", &json!({ "ms": 500 })).await;
    a.call("flood", json!({ "count": 20 })).await;
    let mut slow = Events::of(slow);
    while let Some(message) = slow.message().await {
        assert_ne!(message["method"], "notifications/message");
    }
    a.call("test_trigger_tool_change", json!({})).await;
    assert_eq!(of_b.message().await.expect("a message")["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn updates_go_to_those_who_subscribed() {
    let bridge = bridge(shared()).await;
    let (a, b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let (mut of_a, mut of_b) = (a.events(None).await, b.events(None).await);
    let request = |method: &str| json!({ "jsonrpc": "2.0", "id": 60, "method": method, "params": { "uri": "test://watched-resource" } });
    for client in [&a, &b] {
        client.post(&request("resources/subscribe")).await;
    }
    a.post(&request("resources/unsubscribe")).await;
    b.call("update_watched", json!({})).await;
    assert_eq!(of_b.message().await.expect("a message")["method"], "notifications/resources/updated");
    b.call("test_trigger_tool_change", json!({})).await;
    assert_eq!(of_a.message().await.expect("a message")["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn subscriptions_of_a_session_take_so_much_and_no_more() {
    let bridge = bridge(shared()).await;
    let client = Client::connect(&bridge).await;
    let subscribe = async |uri: String| {
        let request = json!({ "jsonrpc": "2.0", "id": 61, "method": "resources/subscribe", "params": { "uri": uri } });
        whole(client.post(&request).await).await
    };
    for number in 0..6 {
        let answer = subscribe(format!("test://{number}/{}", "x".repeat(10_000))).await;
        assert!(answer.get("result").is_some(), "{answer}");
    }
    for uri in ["x".repeat(10_000), "x".repeat(1_000_000)] {
        let answer = subscribe(uri).await;
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("subscri")), "{answer}");
    }
}

#[tokio::test]
async fn session_that_ends_leaves_the_others_and_takes_its_requests_along() {
    let bridge = bridge(shared()).await;
    let (a, b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let _stream = a.start(&json!(1), "slow", &json!({ "ms": 60_000 })).await;
    a.delete().await;
    until("nothing is in flight", || async { bridge.status().children.iter().all(|(_, n)| *n == 0) }).await;
    assert_ne!(b.text("cancelled", json!({})).await, "[]");
    assert_eq!(b.text("count", json!({})).await, "1");
}

#[tokio::test]
async fn question_goes_to_the_client_that_waits() {
    let bridge = bridge(shared()).await;
    let (a, _b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let mut events = Events::of(a.start(&json!(1), "test_sampling", &json!({ "prompt": "p" })).await);
    let asked = events.message().await.expect("a request");
    a.post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "content": { "text": "hi" } } })).await;
    assert_eq!(events.message().await.expect("an answer")["result"]["content"][0]["text"], "LLM response: hi");
}
