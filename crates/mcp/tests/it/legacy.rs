//! Sessions, streams and what goes from the server to the client.

use std::time::Duration;

use emergent_mcp::{BridgeConfig, BridgeEvent, Era};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, Events, all_gone, bridge, bridge_over, fixture, initialize, pids, post, quick, text, until,
};

#[tokio::test]
async fn client_is_known_to_its_child_as_it_is() {
    let bridge = bridge(quick()).await;
    let client = Client::connect_as(&bridge, "Jürgen \u{1F980}", "2025-06-18").await;
    let seen: Value = serde_json::from_str(&client.text("whoami", json!({})).await).expect("JSON");
    assert_eq!(seen["clientInfo"]["name"], "Jürgen \u{1F980}");
    assert_eq!(seen["capabilities"]["roots"]["listChanged"], true);
}

#[tokio::test]
async fn answers_keep_their_bytes() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    for id in ["1", "\"a\\u0062\"", "-3", "1.5", "12345678901234567890", "9007199254740993", "\"\""] {
        let body = format!(
            "{{\n \"x-vendor\" : 1.0,\r\n \"id\":{id}, \"jsonrpc\":\"2.0\", \"method\":\"tools/call\", \"params\":{{\"name\":\"echo\",\"arguments\":{{\"text\":\"é\\u0000\"}}}}}}"
        );
        let answer = post(&bridge, &[("mcp-session-id", &client.session)], &body).await;
        let text = text(answer).await;
        assert!(text.contains(&format!("\"id\":{id}")), "{id}: {text}");
        assert!(text.contains("\"x-vendor\":{\"kept\":1.0}"), "{text}");
    }
}

#[tokio::test]
async fn progress_logs_and_answer_come_on_the_stream_of_their_request() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let answer = client.start(&json!(7), "slow", &json!({ "ms": 200 })).await;
    let mut events = Events::of(answer);
    let primer = events.next().await.expect("a first event");
    assert!(primer.id.is_some() && primer.data.is_empty(), "{primer:?}");
    let progress = events.message().await.expect("progress");
    assert_eq!(
        (&progress["method"], &progress["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!(7))
    );
    assert_eq!(events.message().await.expect("an answer")["id"], 7);
    assert!(events.next().await.is_none());

    let answer = client.start(&json!(8), "flood", &json!({ "count": 3000 })).await;
    let mut events = Events::of(answer);
    let mut logs = 0;
    while let Some(message) = events.message().await {
        logs += usize::from(message["method"] == "notifications/message");
    }
    assert_eq!(logs, 3000);
}

#[tokio::test]
async fn server_asks_the_client_and_gets_its_answer() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    for (tool, method, result, expected) in [
        (
            "test_sampling",
            "sampling/createMessage",
            json!({ "role": "assistant", "content": { "type": "text", "text": "hello" }, "model": "m" }),
            "LLM response: hello",
        ),
        (
            "test_elicitation",
            "elicitation/create",
            json!({ "action": "decline" }),
            "Elicitation completed: action=decline",
        ),
    ] {
        let answer = client.start(&json!(1), tool, &json!({ "prompt": "p", "message": "m" })).await;
        let mut events = Events::of(answer);
        let asked = events.message().await.expect("a request");
        assert_eq!(asked["method"], method);
        let told = client.post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })).await;
        assert_eq!(told.status(), StatusCode::ACCEPTED);
        let message = events.message().await.expect("an answer");
        let text = message["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with(expected), "{message}");
    }
}

#[tokio::test]
async fn standing_stream_has_what_belongs_to_no_request() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let mut events = client.events(None).await;
    client.call("test_trigger_tool_change", json!({})).await;
    assert_eq!(events.message().await.expect("a message")["method"], "notifications/tools/list_changed");
    client.call("update_watched", json!({})).await;
    let subscribe = json!({ "jsonrpc": "2.0", "id": 50, "method": "resources/subscribe", "params": { "uri": "test://watched-resource" } });
    client.post(&subscribe).await;
    client.call("update_watched", json!({})).await;
    let updated = events.message().await.expect("a message");
    assert_eq!(updated["params"]["uri"], "test://watched-resource", "{updated}");
}

#[tokio::test]
async fn cut_stream_goes_on_where_it_was_cut() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let answer = client.start(&json!(1), "flood", &json!({ "count": 20 })).await;
    let mut events = Events::of(answer);
    events.next().await;
    let mut seen = Vec::new();
    let mut last = None;
    for _ in 0..5 {
        let event = events.next().await.expect("a log");
        last = event.id;
        seen.push(event.data);
    }
    drop(events);
    let mut events = client.events(last.as_deref()).await;
    while let Some(event) = events.next().await {
        if !event.data.is_empty() {
            seen.push(event.data);
        }
    }
    assert_eq!(seen.len(), 21, "{seen:?}");
    for (number, data) in seen.iter().take(20).enumerate() {
        assert!(data.contains(&format!(" {number}\"")), "{data}");
    }
    assert!(seen[20].contains("flooded"));
    // All of it once more: it is still kept.
    let first = last.map(|id| id.rsplit_once('-').map(|(stream, _)| format!("{stream}-0")).expect("an id"));
    let mut again = client.events(first.as_deref()).await;
    let mut count = 0;
    while let Some(event) = again.next().await {
        count += usize::from(!event.data.is_empty());
    }
    assert_eq!(count, 21);
}

#[tokio::test]
async fn answer_that_came_while_nobody_read_is_found_again() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let mut events = Events::of(client.start(&json!(1), "slow", &json!({ "ms": 300 })).await);
    let primer = events.next().await.expect("a first event").id;
    drop(events);
    until("the answer is there", || async { bridge.status().children.iter().all(|(_, in_flight)| *in_flight == 0) })
        .await;
    let mut events = client.events(primer.as_deref()).await;
    assert_eq!(events.message().await.expect("progress")["method"], "notifications/progress");
    assert_eq!(events.message().await.expect("an answer")["result"]["content"][0]["text"], "at last");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn cancelled_request_reaches_the_child_and_ends_its_stream() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let mut events = Events::of(client.start(&json!("x"), "slow", &json!({ "ms": 10_000 })).await);
    events.message().await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "x" } });
    assert_eq!(client.post(&cancel).await.status(), StatusCode::ACCEPTED);
    assert_eq!(events.message().await, None);
    assert_eq!(client.text("cancelled", json!({})).await, "[\"x\"]");
}

#[tokio::test]
async fn deleted_session_is_gone_with_its_child() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let before = pids(&bridge);
    assert_eq!(before.len(), 1);
    assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
    let answer = client.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(client.delete().await, StatusCode::NOT_FOUND);
    all_gone(&before).await;
}

#[tokio::test]
async fn idle_session_ends_and_connected_one_stays() {
    let config = BridgeConfig { idle_after: Duration::from_millis(300), ..quick() };
    let bridge = bridge(config).await;
    let (idle, connected) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let _events = connected.events(None).await;
    until("the idle session ends", || async { bridge.status().sessions == 1 }).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(idle.post(&ping).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(connected.post(&ping).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn batches_are_answered_where_the_version_has_them() {
    let bridge = bridge(quick()).await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/roots/list_changed" },
        { "jsonrpc": "2.0", "id": 2, "method": "tools/list" },
    ]);
    let old = Client::connect_as(&bridge, "old", "2025-03-26").await;
    let mut events = Events::of(old.post(&batch).await);
    let mut ids = Vec::new();
    while let Some(message) = events.message().await {
        ids.push(message["id"].as_u64());
    }
    ids.sort_unstable();
    assert_eq!(ids, [Some(1), Some(2)]);
    let new = Client::connect(&bridge).await;
    let refused = new.post(&batch).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(text(refused).await.contains("-32600"));
}

#[tokio::test]
async fn cancelling_one_request_of_a_batch_leaves_the_others() {
    let bridge = bridge(quick()).await;
    let client = Client::connect_as(&bridge, "old", "2025-03-26").await;
    let slow = |id: u32, ms: u32| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "slow", "arguments": { "ms": ms } } })
    };
    let mut events = Events::of(client.post(&json!([slow(1, 60_000), slow(2, 4000)])).await);
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(client.post(&cancel).await.status(), StatusCode::ACCEPTED);
    let mut answered = Vec::new();
    while let Some(message) = events.message().await {
        answered.extend(message["id"].as_u64());
    }
    assert_eq!(answered, [2]);
}

#[tokio::test]
async fn server_that_refuses_a_session_is_heard_and_leaves_no_child() {
    let bridge = bridge_over(fixture(&["--only-modern"]), quick()).await;
    let mut events = bridge.events();
    let answer = post(&bridge, &[], &initialize("old", "2025-11-25")).await;
    assert!(!answer.headers().contains_key("mcp-session-id"));
    assert!(text(answer).await.contains("-32022"));
    until("the child ends", || async { bridge.status().children.is_empty() }).await;
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Started { .. })));
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Ended { .. })));
    assert_eq!(bridge.status().era, None::<Era>);
}
