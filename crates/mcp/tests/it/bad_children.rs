//! Servers that do what they should not.

use std::time::{Duration, Instant};

use emergent_budget::Budget;
use emergent_mcp::{BridgeConfig, BridgeEvent, CallError, LINE_LIMIT, OUTPUT_KEPT, ProcessLauncher, Sharing};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    keeping::Keeper,
    support::{
        Client, LONG, all_gone, bridge, bridge_over, fixture, initialize, modern_tool, pids, post, quick, text, until,
        whole,
    },
};

#[tokio::test]
async fn each_misdeed_harms_only_its_caller() {
    let bridge = bridge(BridgeConfig { line_limit: 1 << 20, ..quick() }).await;
    let (bad, good) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    for (tool, arguments, error) in [
        ("twice", json!({ "text": "t" }), None),
        ("stranger", json!({ "text": "t" }), None),
        ("long_line", json!({ "bytes": 100 << 20 }), Some(-32603)),
        ("long_line", json!({ "bytes": 1 << 19 }), None),
    ] {
        let message = bad.call(tool, arguments).await;
        assert_eq!(message["error"]["code"].as_i64(), error, "{tool}: {}", message["error"]);
        assert!(!message["result"].is_null() || error.is_some());
        assert_eq!(good.text("echo", json!({ "text": tool })).await, tool);
        assert_eq!(bad.text("echo", json!({ "text": tool })).await, tool);
    }
    assert_eq!(bridge.status().sessions, 2);
}

/// The number of bytes that an answer of `long_line` to the request 1 has beside its text.
const AROUND: usize = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""}]}}"#.len();

#[tokio::test]
async fn long_messages_are_held_on_their_owners_account_until_their_client_has_them() {
    let budget = Budget::undivided(8 << 20);
    for sharing in [Sharing::PerSession, Sharing::Shared] {
        let bridge = bridge(BridgeConfig { account: Some(budget.account()), sharing, ..quick() }).await;
        let client = Client::connect(&bridge).await;
        let unread = client.start(&json!(77), "long_line", &json!({ "bytes": 3 << 20 })).await;
        assert!(budget.held() >= 3 << 20, "{}", budget.held());
        // What cannot be held beside it is dropped, and nobody else feels it.
        let refused = client.call("long_line", json!({ "bytes": 6 << 20 })).await;
        assert_eq!(refused["error"]["code"], -32603, "{}", refused["error"]);
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("bytes that it may hold") && message.contains("try again"), "{message}");
        assert_eq!(client.text("echo", json!({ "text": "next" })).await, "next");
        assert!(text(unread).await.len() > 3 << 20);
        until("what was held is given back", || std::future::ready(budget.held() == 0)).await;
    }
}

#[tokio::test]
async fn line_over_the_limit_is_dropped_and_the_process_goes_on_whatever_keeps_its_output() {
    let keeper = Keeper::with_room(fixture(&[]), OUTPUT_KEPT);
    let bridge = bridge_over(keeper, quick()).await;
    let client = Client::connect(&bridge).await;
    for (length, fits) in [
        (LINE_LIMIT - 1, true),
        (LINE_LIMIT, true),
        (LINE_LIMIT + 1, false),
        // The output that is kept ends here; a reader that waits for the end of the line waits for ever.
        (OUTPUT_KEPT + 1, false),
        (40 << 20, false),
    ] {
        let answer = client.start(&json!(1), "long_line", &json!({ "bytes": length - AROUND })).await;
        let text = text(answer).await;
        assert_eq!(text.len() > LINE_LIMIT / 2, fits, "{length}: {}", text.get(..200).unwrap_or(&text));
        let told = format!("has {length} bytes, more than the limit of {LINE_LIMIT}");
        assert!(fits || (text.contains("-32603") && text.contains(&told)), "{text}");
        assert_eq!(client.text("echo", json!({ "text": "next" })).await, "next");
    }
}

/// A server that answers `initialize` with the id `init`, and then does this.
fn scripted(rest: &str) -> ProcessLauncher {
    let result = r#"{"protocolVersion":"2025-11-25","serverInfo":{"name":"emergent-mcp-fixture"},"capabilities":{}}"#;
    let script =
        format!("read -r _; echo '{{\"jsonrpc\":\"2.0\",\"id\":\"init\",\"result\":{result}}}'; read -r _; {rest}");
    ProcessLauncher::new(["sh".to_owned(), "-c".to_owned(), script])
}

#[tokio::test]
async fn what_waits_for_a_server_that_does_not_read_is_held_and_bounded() {
    let budget = Budget::undivided(64 << 20);
    let config = || BridgeConfig { call_timeout: Duration::from_secs(1), ..quick() };
    let told =
        |bytes: usize| json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "x": "x".repeat(bytes) } });
    let bridge = bridge_over(scripted("exec sleep 600"), BridgeConfig { account: Some(budget.account()), ..config() });
    let bridge = bridge.await;
    let client = Client::connect(&bridge).await;
    for status in [StatusCode::ACCEPTED, StatusCode::ACCEPTED, StatusCode::GATEWAY_TIMEOUT] {
        let answer = client.post(&told(7 << 20)).await;
        let got = answer.status();
        assert_eq!(got, status, "{}", text(answer).await);
        assert!(budget.held() >= 7 << 20, "{}", budget.held());
    }
    assert!(budget.held() < 15 << 20, "{}", budget.held());
    client.delete().await;
    until("what was held is given back", || std::future::ready(budget.held() == 0)).await;

    let small = Budget::undivided(1 << 20);
    let bridge = bridge_over(scripted("exec sleep 600"), BridgeConfig { account: Some(small.account()), ..config() });
    let client = Client::connect(&bridge.await).await;
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "x", "params": { "x": "x".repeat(2 << 20) } });
    for message in [told(2 << 20), request] {
        let refused = client.post(&message).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let said = text(refused).await;
        assert!(said.contains("-32000") && said.contains("cannot be held"), "{said}");
    }
    assert_eq!(small.held(), 0);
}

#[tokio::test]
async fn a_long_id_of_a_server_is_refused_and_sent_to_nobody() {
    let id = "x".repeat(2_000);
    let answer = |text: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
    };
    let rest = format!(
        r#"read -r _; echo '{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}'; read -r said
        case "$said" in *32600*) echo '{}';; *) echo '{}';; esac; read -r _"#,
        answer("refused"),
        answer("taken")
    );
    let bridge = bridge_over(scripted(&rest), quick()).await;
    let client = Client::connect(&bridge).await;
    assert_eq!(client.text("any", json!({})).await, "refused");
}

#[tokio::test]
async fn a_batch_of_a_server_that_is_too_large_is_answered_as_a_line_that_is_too_long() {
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"read"}]}}"#;
    let many = |element: &str, count: usize| {
        format!(
            r#"read -r _; printf '%s' '[{answer}'; yes ',{element}' | head -n {count} | tr -d '\n'; echo ']'
            read -r _"#
        )
    };
    // What is no message among others is left out.
    for (element, count, fits) in [
        ("1", 60_000, false),
        (r#"{"method":""}"#, 20_000, false),
        ("1", 40_000, true),
        (r#"{"method":""}"#, 100, true),
    ] {
        let bridge = bridge_over(scripted(&many(element, count)), quick()).await;
        let client = Client::connect(&bridge).await;
        let message = client.call("any", json!({})).await;
        let said = message["error"]["message"].as_str().unwrap_or_default();
        let told = said.contains("batch of more than the limit of 50000 values");
        let read = message["result"]["content"][0]["text"] == "read";
        assert_eq!((told, read), (!fits, fits), "{count} × {element}: {message}");
    }
}

#[tokio::test]
async fn process_that_takes_no_input_is_ended() {
    let bridge = bridge_over(Keeper::unwritable(fixture(&[])), quick()).await;
    let refused = bridge.call("tools/list", None, LONG).await;
    assert!(matches!(refused, Err(CallError::Exited(_))), "{refused:?}");
    until("no child is left", || async { bridge.status().children.is_empty() }).await;
}

#[tokio::test]
async fn late_large_answer_is_plain_json() {
    let bridge = bridge(BridgeConfig::default()).await;
    let client = Client::connect(&bridge).await;
    let arguments = json!({ "bytes": 2 << 20, "ms": 1500 });
    for answer in [
        client.start(&json!(1), "long_line", &arguments).await,
        modern_tool(&bridge, &json!(2), "long_line", arguments.clone()).await,
    ] {
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert!(text(answer).await.len() > 2 << 20);
    }
}

#[tokio::test]
async fn slow_start_goes_on_without_its_caller_and_serves_the_next() {
    let bridge = bridge_over(fixture(&["--slow-start", "3000"]), quick()).await;
    let mut events = bridge.events();
    let early = bridge.call("ping", None, Duration::from_millis(200)).await;
    assert!(matches!(early, Err(CallError::TimedOut { .. })), "{early:?}");
    assert_eq!(bridge.status().children.len(), 1);
    bridge.call("tools/list", None, LONG).await.expect("an answer");
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Started { .. })));
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, BridgeEvent::Started { .. } | BridgeEvent::Ended { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn answer_that_never_comes_is_given_up_and_the_session_goes_on() {
    let bridge = bridge(BridgeConfig { call_timeout: Duration::from_millis(700), ..quick() }).await;
    let mut events = bridge.events();
    let client = Client::connect(&bridge).await;
    let message = client.call("hang", json!({})).await;
    assert_eq!(message["error"]["code"], -32001, "{message}");
    assert_eq!(client.text("test_tool_with_progress", json!({})).await, "done");
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Started { .. })));
    assert!(matches!(events.recv().await, Ok(BridgeEvent::TimedOut { .. })));
}

#[tokio::test]
async fn rubbish_on_stdout_is_told_once_and_skipped() {
    let bridge = bridge_over(fixture(&["--rubbish"]), quick()).await;
    let mut events = bridge.events();
    let client = Client::connect(&bridge).await;
    assert_eq!(client.text("echo", json!({ "text": "x" })).await, "x");
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Started { .. })));
    assert!(matches!(events.recv().await, Ok(BridgeEvent::Rubbish { .. })));
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn crash_fails_what_is_in_flight_at_once_and_the_session_is_gone() {
    let bridge = bridge(quick()).await;
    let mut events = bridge.events();
    let (crashing, other) = (Client::connect(&bridge).await, Client::connect(&bridge).await);
    let begun = Instant::now();
    let (hangs, ends) = (json!("hangs"), json!("ends"));
    let (nothing, code) = (json!({}), json!({ "code": 7 }));
    let (one, two) = tokio::join!(crashing.start(&hangs, "hang", &nothing), crashing.start(&ends, "exit", &code));
    for answer in [one, two] {
        let message = whole(answer).await;
        assert_eq!((&message["error"]["code"], &message["error"]["data"]["exit_code"]), (&json!(-32603), &json!(7)));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let answer = crashing.post(&json!({ "jsonrpc": "2.0", "id": 9, "method": "ping" })).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(other.text("count", json!({})).await, "1");
    assert_eq!(Client::connect(&bridge).await.text("count", json!({})).await, "1");
    loop {
        if let BridgeEvent::Crashed { exit, .. } = events.recv().await.expect("an event") {
            assert_eq!(exit.code, Some(7));
            assert!(exit.stderr.contains("last words"));
            break;
        }
    }
}

#[tokio::test]
async fn warm_child_that_crashed_is_started_again_by_the_next_request() {
    let bridge = bridge(quick()).await;
    let message = whole(modern_tool(&bridge, &json!(1), "exit", json!({ "code": 1 })).await).await;
    assert_eq!(message["error"]["code"], -32603);
    let message = whole(modern_tool(&bridge, &json!(2), "count", json!({})).await).await;
    assert_eq!(message["result"]["content"][0]["text"], "1");
}

#[tokio::test]
async fn server_that_never_gets_ready_is_given_up() {
    let config = BridgeConfig { start_timeout: Duration::from_millis(300), ..quick() };
    let bridge = bridge_over(fixture(&["--never-ready"]), config).await;
    let answer = post(&bridge, &[], &initialize("c", "2025-11-25")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(whole(answer).await["error"]["message"].as_str().unwrap_or_default().contains("not ready"));
    bridge.shut_down(Duration::from_millis(300)).await;
    assert!(bridge.status().children.is_empty());
}

#[tokio::test]
async fn program_that_is_not_there_is_named() {
    for (command, expected) in [("/no/such/program", "/no/such/program"), ("false", "exited with code 1")] {
        let bridge = bridge_over(ProcessLauncher::new([command]), quick()).await;
        let answer = post(&bridge, &[], &initialize("c", "2025-11-25")).await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let message: Value = whole(answer).await;
        assert!(message["error"]["message"].as_str().unwrap_or_default().contains(expected), "{message}");
        assert_eq!(message["id"], "init");
    }
}

#[tokio::test]
async fn child_that_ignores_its_end_is_killed_after_the_grace() {
    let deaf = ProcessLauncher::new(
        ["sh", "-c", "trap '' TERM; \"$0\" --deaf-to-term & wait; wait"]
            .map(String::from)
            .into_iter()
            .chain([env!("CARGO_BIN_EXE_emergent-mcp-fixture").to_owned()]),
    );
    // Background children of a shell have no stdin of their own: this one only has to stay.
    let config = BridgeConfig { start_timeout: Duration::from_millis(200), ..quick() };
    let bridge = bridge_over(deaf, config).await;
    post(&bridge, &[], &initialize("c", "2025-11-25")).await;
    let before = pids(&bridge);
    assert_eq!(before.len(), 1);
    bridge.shut_down(Duration::from_millis(600)).await;
    all_gone(&before).await;
}
