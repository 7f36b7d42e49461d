//! The isolation of clients: nothing that belongs to one of them reaches another.

use serde_json::json;

use crate::support::{Client, bridge, quick};

#[tokio::test]
async fn nothing_of_one_session_is_seen_by_another() {
    let bridge = bridge(quick()).await;
    let (a, b) =
        (Client::connect_as(&bridge, "a", "2025-11-25").await, Client::connect_as(&bridge, "b", "2025-11-25").await);
    let mut of_b = b.events(None).await;
    a.call("count", json!({})).await;
    a.call("flood", json!({ "count": 20, "text": "of a" })).await;
    a.call("test_trigger_tool_change", json!({})).await;
    assert_eq!(b.text("count", json!({})).await, "1");
    assert!(b.text("whoami", json!({})).await.contains("\"b\""));
    b.call("test_trigger_prompt_change", json!({})).await;
    // The first that b sees is its own.
    assert_eq!(of_b.message().await.expect("a message")["method"], "notifications/prompts/list_changed");
}

#[tokio::test]
async fn answer_to_another_sessions_question_goes_nowhere() {
    let bridge = bridge(quick()).await;
    let (a, b) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let mut events = crate::support::Events::of(a.start(&json!(1), "test_sampling", &json!({ "prompt": "p" })).await);
    let asked = events.message().await.expect("a request");
    let answer = |text: &str| json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "content": { "text": text } } });
    b.post(&answer("of b")).await;
    a.post(&answer("of a")).await;
    a.post(&answer("again")).await;
    let message = events.message().await.expect("an answer");
    assert_eq!(message["result"]["content"][0]["text"], "LLM response: of a");
}
