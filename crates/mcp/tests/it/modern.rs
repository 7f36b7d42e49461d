//! The newer era: one warm child for all, headers that are checked, subscriptions.

use emergent_mcp::{BridgeEvent, Era};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, Events, MODERN, bridge, bridge_over, fixture, modern, modern_tool, pids, post, quick, text, until, whole,
};

#[tokio::test]
async fn requests_share_a_warm_child_and_sessions_do_not() {
    let bridge = bridge(quick()).await;
    let mut counts = Vec::new();
    for id in ["1", "\"one\"", "1.5", "12345678901234567890"] {
        let id: Value = serde_json::from_str(id).expect("JSON");
        let message = whole(modern_tool(&bridge, &id, "count", json!({})).await).await;
        assert_eq!(message["id"].to_string(), id.to_string());
        counts.push(message["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(counts, ["1", "2", "3", "4"]);
    assert_eq!(bridge.status().era, Some(Era::Modern));
    let client = Client::connect(&bridge).await;
    assert_eq!(client.text("count", json!({})).await, "1");
    assert_eq!(pids(&bridge).len(), 2);
}

#[tokio::test]
async fn same_ids_and_tokens_of_two_clients_do_not_meet() {
    let bridge = bridge(quick()).await;
    let id = json!(1);
    let (one, two) = tokio::join!(
        modern_tool(&bridge, &id, "slow", json!({ "ms": 300 })),
        modern_tool(&bridge, &id, "echo", json!({ "text": "two" })),
    );
    assert_eq!(whole(two).await["result"]["content"][0]["text"], "two");
    let mut events = Events::of(one);
    let progress = events.message().await.expect("progress");
    assert_eq!(progress["params"]["progressToken"], 1);
    let answer = events.message().await.expect("an answer");
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(1), &json!("at last")));
}

#[tokio::test]
async fn client_that_goes_away_cancels() {
    let bridge = bridge(quick()).await;
    let mut events = Events::of(modern_tool(&bridge, &json!(1), "slow", json!({ "ms": 60_000 })).await);
    events.message().await;
    drop(events);
    until("the child is told", || async {
        let message = whole(modern_tool(&bridge, &json!(2), "cancelled", json!({})).await).await;
        message["result"]["content"][0]["text"] != "[]"
    })
    .await;
    until("nothing is in flight", || async { bridge.status().children.iter().all(|(_, n)| *n == 0) }).await;
}

#[tokio::test]
async fn subscriptions_get_what_they_asked_for_under_their_own_ids() {
    let bridge = bridge(quick()).await;
    let listen = async |id: Value, wanted: Value| {
        Events::of(modern(&bridge, &id, "subscriptions/listen", json!({ "notifications": wanted })).await)
    };
    let mut tools = listen(json!(5), json!({ "toolsListChanged": true })).await;
    let mut prompts = listen(json!("five"), json!({ "promptsListChanged": true })).await;
    let tag = |message: &Value| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    for (events, id) in [(&mut tools, json!(5)), (&mut prompts, json!("five"))] {
        let first = events.message().await.expect("a message");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(tag(&first), id);
    }
    whole(modern_tool(&bridge, &json!(6), "test_trigger_prompt_change", json!({})).await).await;
    whole(modern_tool(&bridge, &json!(6), "test_trigger_tool_change", json!({})).await).await;
    let changed = tools.message().await.expect("a message");
    assert_eq!((&changed["method"], tag(&changed)), (&json!("notifications/tools/list_changed"), json!(5)));
    let changed = prompts.message().await.expect("a message");
    assert_eq!((&changed["method"], tag(&changed)), (&json!("notifications/prompts/list_changed"), json!("five")));
    drop(tools);
    until("the subscription ends", || async { bridge.status().children.iter().all(|(_, n)| *n == 1) }).await;
}

#[tokio::test]
async fn headers_and_body_must_agree() {
    let bridge = bridge(quick()).await;
    let meta =
        json!({ "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {} });
    let call = |name: &str, arguments: Value, meta: &Value| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name, "arguments": arguments, "_meta": meta } });
    let version = ("mcp-protocol-version", MODERN);
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "test_x_mcp_header");
    let plain = call("test_x_mcp_header", json!({}), &meta);
    let region = call("test_x_mcp_header", json!({ "region": "eu" }), &meta);
    for (headers, body, status, code) in [
        (vec![version, method, name], &plain, 200, None),
        (vec![version, method, ("mcp-name", "=?base64?dGVzdF94X21jcF9oZWFkZXI=?=")], &plain, 200, None),
        (vec![version, method, name, ("mcp-param-region", "eu")], &region, 200, None),
        (vec![version, method, name], &region, 400, Some(-32020)),
        (vec![version, method, name, ("mcp-param-region", "us")], &region, 400, Some(-32020)),
        (vec![version, method], &plain, 400, Some(-32020)),
        (vec![version, name], &plain, 400, Some(-32020)),
        (vec![method, name], &plain, 400, Some(-32020)),
        (vec![version, ("mcp-method", "tools/list"), name], &plain, 400, Some(-32020)),
        (vec![version, method, name], &call("echo", json!({}), &meta), 400, Some(-32020)),
        (vec![version, method, name], &call("test_x_mcp_header", json!({}), &json!({})), 400, Some(-32602)),
        (vec![version, method, name], &call("test_x_mcp_header", json!({}), &json!(null)), 400, Some(-32602)),
    ] {
        let answer = post(&bridge, &headers, &body.to_string()).await;
        let (got, message) = (answer.status(), whole(answer).await);
        assert_eq!((got.as_u16(), message["error"]["code"].as_i64()), (status, code), "{headers:?} {body} {message}");
        assert_eq!(message["id"], 1);
    }
}

#[tokio::test]
async fn errors_have_the_status_of_this_era() {
    let bridge = bridge(quick()).await;
    let mut events = bridge.events();
    for (method, params, status) in [
        ("unknown/method", json!({}), 404),
        ("initialize", json!({}), 404),
        ("tools/call", json!({ "name": "test_missing_capability", "arguments": {} }), 400),
        ("tools/call", json!({ "name": "no_such_tool", "arguments": {} }), 200),
        ("resources/read", json!({ "uri": "test://static-text" }), 200),
    ] {
        let answer = modern(&bridge, &json!(1), method, params).await;
        assert_eq!(answer.status().as_u16(), status, "{method}: {}", text(answer).await);
    }
    for method in [http::Method::GET, http::Method::DELETE] {
        let request =
            http::Request::builder().method(method).uri("http://localhost/mcp").header("mcp-protocol-version", MODERN);
        let answer =
            bridge.handle(request.body(http_body_util::Full::<bytes::Bytes>::default()).expect("a request")).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Started { .. })));
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Era(Era::Modern))));
}

#[tokio::test]
async fn server_of_the_older_era_lets_newer_clients_fall_back() {
    let bridge = bridge_over(fixture(&["--only-legacy"]), quick()).await;
    let answer = modern(&bridge, &json!(1), "server/discover", json!({})).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let code = whole(answer).await["error"]["code"].as_i64();
    assert!(!matches!(code, Some(-32022..=-32020 | -32602 | -32601)), "{code:?} looks like the newer era");
    until("the probe ends", || async { bridge.status().children.is_empty() }).await;
    assert_eq!(bridge.status().era, Some(Era::Legacy));
    assert_eq!(Client::connect(&bridge).await.text("count", json!({})).await, "1");
}
