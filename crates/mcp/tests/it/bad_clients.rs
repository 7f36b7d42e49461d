//! Clients that do what they should not.

use bytes::Bytes;
use emergent_mcp::{BridgeConfig, SessionLimit, Sharing};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{Client, bridge, initialize, post, quick, request, text, until};

#[tokio::test]
async fn each_malformed_request_has_its_answer() {
    let bridge = bridge(BridgeConfig { body_limit: 1000, ..quick() }).await;
    let client = Client::connect(&bridge).await;
    let session = ("mcp-session-id", client.session.as_str());
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(1000));
    for (headers, body, status, code) in [
        (vec![session], "", 400, "-32700"),
        (vec![session], "{", 400, "-32700"),
        (vec![session], "{\"id\":1}", 400, "-32600"),
        (vec![session], "null", 400, "-32600"),
        (vec![session], "[]", 400, "-32600"),
        (vec![session], "[1]", 400, "-32600"),
        (vec![], "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}]", 400, "-32600"),
        (vec![session], &long, 413, "1000"),
        (vec![], ping, 400, "Mcp-Session-Id"),
        (vec![("mcp-session-id", "no-such-session")], ping, 404, "initialize"),
        (vec![session, ("mcp-protocol-version", "1999-01-01")], ping, 400, ""),
        (vec![session, ("host", "evil.example.com")], ping, 403, ""),
        (vec![session, ("origin", "http://evil.example.com")], ping, 403, ""),
    ] {
        let mut request = request(&[]);
        for (name, value) in &headers {
            request.headers_mut().expect("headers").insert(
                http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let answer = bridge.handle(request).await;
        let (got, said) = (answer.status().as_u16(), text(answer).await);
        assert!(got == status && said.contains(code), "{headers:?} {body}: {got} {said}");
    }
    for (name, value, status) in [("content-type", "text/plain", 415), ("accept", "text/html", 406)] {
        let request = Request::post("http://localhost/mcp")
            .header("content-type", "application/json")
            .header("mcp-session-id", &client.session);
        let mut request = request.body(Full::new(Bytes::from_static(ping.as_bytes()))).expect("a request");
        request.headers_mut().insert(name, value.parse().expect("a value"));
        assert_eq!(bridge.handle(request).await.status().as_u16(), status);
    }
    let request = Request::put("http://localhost/mcp").body(Full::<Bytes>::default()).expect("a request");
    assert_eq!(bridge.handle(request).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.text("echo", json!({ "text": "still here" })).await, "still here");
}

#[tokio::test]
async fn a_message_of_more_values_than_any_needs_is_refused() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let ones = |count: usize| vec!["1"; count].join(",");
    for body in [
        format!("[{}]", ones(60_000)),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":[{}]}}}}"#, ones(60_000)),
    ] {
        let request = request(&[("mcp-session-id", &client.session)]).body(Full::new(Bytes::from(body)));
        let answer = bridge.handle(request.expect("a request")).await;
        let (status, said) = (answer.status(), text(answer).await);
        assert!(status == StatusCode::PAYLOAD_TOO_LARGE && said.contains("50000 values"), "{status} {said}");
    }
    let (few, arguments) = (ones(40_000), r#""name":"echo","arguments":{"text":"t"}"#);
    let call = format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{{arguments},"x":[{few}]}}}}"#);
    let request = request(&[("mcp-session-id", &client.session)]).body(Full::new(Bytes::from(call)));
    assert_eq!(bridge.handle(request.expect("a request")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn id_in_use_is_refused_and_the_first_goes_on() {
    let bridge = bridge(quick()).await;
    let client = Client::connect(&bridge).await;
    let (id, arguments) = (json!(1), json!({ "ms": 300 }));
    let first = client.start(&id, "slow", &arguments).await;
    let second = client.start(&json!(1.0), "echo", &json!({})).await;
    assert_eq!(second.status(), StatusCode::BAD_REQUEST);
    assert!(text(first).await.contains("at last"));
}

#[tokio::test]
async fn one_session_too_many_takes_the_place_of_the_longest_idle_one_or_is_refused() {
    let bridge = bridge(BridgeConfig { max_sessions: 2, ..quick() }).await;
    let (first, second) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(first.post(&ping).await.status(), StatusCode::OK);
    let third = Client::connect(&bridge).await;
    assert_eq!(second.post(&ping).await.status(), StatusCode::NOT_FOUND);
    // One waits for an answer, and the other is connected.
    let _busy = first.start(&json!(2), "slow", &json!({ "ms": 60_000 })).await;
    let _connected = third.events(None).await;
    let refused = post(&bridge, &[], &initialize("fourth", "2025-11-25")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    first.delete().await;
    Client::connect(&bridge).await;
}

#[tokio::test]
async fn bridges_with_one_limit_take_the_longest_idle_session_of_all_or_refuse() {
    let together = SessionLimit::new(2);
    let config = || BridgeConfig { together: together.clone(), ..quick() };
    let (one, other) = (bridge(config()).await, bridge(config()).await);
    let (first, second) = (Client::connect(&one).await, Client::connect(&other).await);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(first.post(&ping).await.status(), StatusCode::OK);
    let third = Client::connect(&one).await;
    assert_eq!(second.post(&ping).await.status(), StatusCode::NOT_FOUND);
    let _connected = (first.events(None).await, third.events(None).await);
    let refused = post(&other, &[], &initialize("fourth", "2025-11-25")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    one.shut_down(std::time::Duration::from_secs(1)).await;
    Client::connect(&other).await;
    Client::connect(&other).await;
}

#[tokio::test]
async fn ids_methods_and_progress_tokens_are_short() {
    let bridge = bridge(quick()).await;
    let client = Client::connect_as(&bridge, "test", "2025-03-26").await;
    // As it is written, with its quotes.
    let quoted = |length: usize| "x".repeat(length - 2);
    let message = |id: Value, method: &str, token: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "_meta": { "progressToken": token } } });
    for (length, status) in [(1024, StatusCode::OK), (1025, StatusCode::BAD_REQUEST)] {
        let long = quoted(length);
        for message in [
            message(json!(long), "ping", json!(1)),
            message(json!(1), "ping", json!(long)),
            json!({ "jsonrpc": "2.0", "id": 1, "method": quoted(length + 2) }),
            json!([message(json!(2), "ping", json!(2)), message(json!(long), "ping", json!(1))]),
        ] {
            let answer = client.post(&message).await;
            let got = answer.status();
            let said = text(answer).await;
            assert_eq!(got, status, "{said}");
            assert_eq!(said.contains("-32600"), length > 1024, "{said}");
            assert!(length == 1024 || !said.contains("xx"), "a long id is sent back: {said}");
        }
    }
    assert_eq!(client.text("echo", json!({ "text": "still here" })).await, "still here");
}

#[tokio::test]
async fn sessions_that_share_a_process_are_not_limited_to_as_many_as_there_may_be_processes() {
    let bridge = bridge(BridgeConfig { max_sessions: 2, sharing: Sharing::Shared, ..quick() }).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(&bridge).await);
    }
    assert_eq!((bridge.status().sessions, bridge.status().children.len()), (40, 1));
    assert_eq!(clients[0].text("echo", json!({ "text": "x" })).await, "x");
}

#[tokio::test]
async fn flood_is_bounded_and_others_are_served() {
    let bridge = bridge(BridgeConfig { max_in_flight: 10, ..quick() }).await;
    let (flooding, other) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let calls = (0..30).map(|id| {
        let flooding = &flooding;
        async move { flooding.start(&json!(id), "slow", &json!({ "ms": 1000 })).await.status() }
    });
    let statuses = futures::future::join_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count(), 20, "{statuses:?}");
    assert_eq!(other.text("echo", json!({ "text": "x" })).await, "x");
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_in_flight() {
    let bridge = bridge(BridgeConfig { replay_bytes: 64 << 10, ..quick() }).await;
    let client = Client::connect(&bridge).await;
    for id in 0..20 {
        // The stream is dropped at once; 4 MB of logs have nobody to go to.
        drop(client.start(&json!(id), "flood", &json!({ "count": 2000, "text": "x".repeat(100) })).await);
    }
    until("the floods end", || async { bridge.status().children.iter().all(|(_, n)| *n == 0) }).await;
    assert_eq!(client.text("echo", json!({ "text": "x" })).await, "x");
    // Initializing and going away leaves no child.
    let request = request(&[]).body(Full::new(Bytes::from(initialize("gone", "2025-11-25")))).expect("a request");
    let handling = bridge.handle(request);
    let _ = tokio::time::timeout(std::time::Duration::from_millis(3), handling).await;
    until("its child ends", || async { bridge.status().children.len() <= bridge.status().sessions }).await;
}
