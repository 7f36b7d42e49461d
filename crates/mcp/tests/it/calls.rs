//! Calls without a client.

use std::time::Duration;

use emergent_mcp::{Bridge, CallError};
use serde_json::{Value, json, value::RawValue};

use crate::support::{LONG, bridge, bridge_over, fixture, pids, quick};

async fn tool(bridge: &Bridge, name: &str, arguments: Value, patience: Duration) -> Result<String, CallError> {
    let params = RawValue::from_string(json!({ "name": name, "arguments": arguments }).to_string()).expect("JSON");
    let result = bridge.call("tools/call", Some(&params), patience).await?;
    let result: Value = serde_json::from_str(result.get()).expect("JSON");
    Ok(result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn calls_keep_one_child_in_either_era() {
    for flags in [&["--only-legacy"][..], &["--only-modern"], &["--rubbish"]] {
        let bridge = bridge_over(fixture(flags), quick()).await;
        assert_eq!(tool(&bridge, "count", json!({}), LONG).await.expect("an answer"), "1");
        assert_eq!(tool(&bridge, "count", json!({}), LONG).await.expect("an answer"), "2");
    }
}

#[tokio::test]
async fn errors_keep_their_code_and_data() {
    let bridge = bridge(quick()).await;
    let params = RawValue::from_string(r#"{"uri":"test://nothing"}"#.to_owned()).expect("JSON");
    match bridge.call("resources/read", Some(&params), LONG).await {
        Err(CallError::Rpc { code: -32602, data: Some(data), .. }) => {
            assert_eq!(data.get(), r#"{"uri":"test://nothing"}"#)
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(bridge.call("no/such", None, LONG).await, Err(CallError::Rpc { code: -32601, .. })));
    let array = RawValue::from_string("[1]".to_owned()).expect("JSON");
    assert!(matches!(bridge.call("tools/list", Some(&array), LONG).await, Err(CallError::Parameters)));
}

#[tokio::test]
async fn late_call_is_cancelled_and_restarts_nothing() {
    let bridge = bridge(quick()).await;
    tool(&bridge, "count", json!({}), LONG).await.expect("an answer");
    let before = pids(&bridge);
    let late = tool(&bridge, "slow", json!({ "ms": 60_000 }), Duration::from_millis(200)).await;
    assert!(matches!(late, Err(CallError::TimedOut { .. })), "{late:?}");
    assert_eq!(tool(&bridge, "count", json!({}), LONG).await.expect("an answer"), "2");
    assert_ne!(tool(&bridge, "cancelled", json!({}), LONG).await.expect("an answer"), "[]");
    assert_eq!(pids(&bridge), before);
}

#[tokio::test]
async fn call_during_which_the_server_ends_fails_at_once_and_the_next_starts_another() {
    let bridge = bridge(quick()).await;
    match tool(&bridge, "exit", json!({ "code": 3 }), LONG).await {
        Err(CallError::Exited(exit)) => {
            assert_eq!(exit.code, Some(3));
            assert!(exit.stderr.contains("last words"), "{}", exit.stderr);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tool(&bridge, "count", json!({}), LONG).await.expect("an answer"), "1");
}

#[tokio::test]
async fn many_calls_at_once_get_their_own_answers() {
    let bridge = bridge(quick()).await;
    let calls = (0..100).map(|number| {
        let bridge = &bridge;
        async move { (number.to_string(), tool(bridge, "echo", json!({ "text": number.to_string() }), LONG).await) }
    });
    for (sent, got) in futures::future::join_all(calls).await {
        assert_eq!(got.expect("an answer"), sent);
    }
}
