//! A bridge that takes over from one before it.

use std::{sync::Arc, time::Duration};

use emergent_mcp::{Bridge, BridgeConfig, Sharing};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    keeping::Keeper,
    support::{Client, Events, bridge_over, fixture, modern, modern_tool, pids, quick, until, whole},
};

pub(crate) async fn again(client: &Client, bridge: &Arc<Bridge>) -> Client {
    let answer = crate::support::post(
        bridge,
        &[("mcp-session-id", &client.session)],
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
    )
    .await;
    assert_eq!(answer.status(), StatusCode::OK);
    Client::resumed(bridge, &client.session)
}

#[tokio::test]
async fn session_goes_on_with_its_state_and_its_late_answer() {
    let keeper = Keeper::new(fixture(&[]));
    let first = bridge_over(keeper.clone(), quick()).await;
    let client = Client::connect(&first).await;
    assert_eq!(client.text("count", json!({})).await, "1");
    let mut events = Events::of(client.start(&json!("late"), "slow", &json!({ "ms": 500 })).await);
    let last = events.next().await.expect("a first event").id;
    let before = pids(&first);
    first.detach().await;
    drop((events, first));

    let second = bridge_over(keeper.clone(), quick()).await;
    assert_eq!(pids(&second), before);
    let client = again(&client, &second).await;
    assert_eq!(client.text("count", json!({})).await, "2");
    let mut events = client.events(last.as_deref()).await;
    loop {
        let message = events.message().await.expect("the answer");
        if message["id"] == "late" {
            assert_eq!(message["result"]["content"][0]["text"], "at last");
            break;
        }
    }
    client.delete().await;
    until("the child ends", || async { second.status().children.is_empty() }).await;
}

#[tokio::test]
async fn answer_that_was_read_and_not_delivered_is_found_after_a_crash() {
    let keeper = Keeper::new(fixture(&[]));
    let first = bridge_over(keeper.clone(), quick()).await;
    let client = Client::connect(&first).await;
    let mut events = Events::of(client.start(&json!("late"), "slow", &json!({ "ms": 300 })).await);
    let last = events.next().await.expect("a first event").id;
    // The client reads no further, and the server has the answer of a tool that ran.
    until("the answer is there", || async { first.status().children.iter().all(|(_, in_flight)| *in_flight == 0) })
        .await;
    first.detach().await;
    drop((events, first));

    let second = bridge_over(keeper.clone(), quick()).await;
    let client = again(&client, &second).await;
    let mut events = client.events(last.as_deref()).await;
    loop {
        let message = events.message().await.expect("the answer");
        if message["id"] == "late" {
            assert_eq!(message["result"]["content"][0]["text"], "at last");
            break;
        }
    }
    second.shut_down(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn warm_child_goes_on_and_late_answers_are_nobodys() {
    let keeper = Keeper::new(fixture(&[]));
    let first = bridge_over(keeper.clone(), quick()).await;
    let count = async |bridge: &Bridge| -> Value {
        whole(modern_tool(bridge, &json!(1), "count", json!({})).await).await["result"]["content"][0]["text"].clone()
    };
    assert_eq!(count(&first).await, "1");
    let _late =
        modern(&first, &json!(1), "subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }))
            .await;
    first.detach().await;
    let second = bridge_over(keeper.clone(), quick()).await;
    assert_eq!(count(&second).await, "2");
    whole(modern_tool(&second, &json!(1), "test_trigger_tool_change", json!({})).await).await;
    assert_eq!(count(&second).await, "3");
    second.shut_down(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn shared_child_goes_on_with_all_its_sessions() {
    let config = BridgeConfig { sharing: Sharing::Shared, ..quick() };
    let keeper = Keeper::new(fixture(&[]));
    let first = bridge_over(keeper.clone(), config.clone()).await;
    let (a, b) = (Client::connect(&first).await, Client::connect(&first).await);
    assert_eq!(a.text("count", json!({})).await, "1");
    first.detach().await;
    let second = bridge_over(keeper.clone(), config).await;
    let (a, b) = (again(&a, &second).await, again(&b, &second).await);
    assert_eq!(a.text("count", json!({})).await, "2");
    assert_eq!(b.text("count", json!({})).await, "3");
    second.shut_down(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn child_that_nobody_can_use_is_ended() {
    let keeper = Keeper::new(fixture(&[]));
    let first = bridge_over(keeper.clone(), quick()).await;
    Client::connect(&first).await;
    first.detach().await;
    // The sessions of the one kind mean nothing to the other.
    let second = bridge_over(keeper.clone(), BridgeConfig { sharing: Sharing::Shared, ..quick() }).await;
    until("the child ends", || async { second.status().children.is_empty() }).await;
}
