//! Tests of the server's offers over MCP itself: workspaces, and the endpoint for all hosted servers.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, header},
};
use emergent_api::http::rates::RateLimit;
use emergent_auth::TokenSecret;
use emergent_store::Scope;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, WORKSPACES};

const MODERN: &str = "2026-07-28";

async fn post(api: &Api, token: &str, path: &str, headers: &[(&str, &str)], message: Value) -> Answer {
    let mut request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(Body::from(message.to_string())).unwrap()).await
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text).unwrap_or_else(|_| panic!("{}", answer.text))
}

/// The message that begins a session.
fn initialize() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } })
}

/// Begins a session at `/mcp`; returns its id.
async fn open_session(api: &Api, token: &str) -> String {
    let opened = post(api, token, "/mcp", &[], initialize()).await;
    opened.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn token_of_another_project(api: &Api) -> String {
    let made = r#"{"name": "t", "scopes": ["mcp:use"], "project": "other"}"#;
    api.post("/api/v1/tokens", made).await.json()["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn client_of_the_older_era_finds_the_seven_tools() {
    let api = Api::start().await;
    let path = format!("{WORKSPACES}/{}/mcp", api.new_row("a", &[]).await);
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let initialize = json!({ "jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params });
    let answer = post(&api, &api.token, &path, &[], initialize).await;
    let result = json(&answer);
    assert_eq!((&result["id"], &result["result"]["protocolVersion"]), (&json!("i"), &json!("2025-06-18")), "{result}");
    assert!(!answer.headers.contains_key("mcp-session-id"));
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(post(&api, &api.token, &path, &[], told).await.status, 202);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let tools = json(&post(&api, &api.token, &path, &[], list).await);
    let names: Vec<_> =
        tools["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bash", "read", "write", "edit", "glob", "grep", "git"]);
    let unknown = json!({ "jsonrpc": "2.0", "id": 2, "method": "resources/list" });
    let answer = post(&api, &api.token, &path, &[], unknown).await;
    assert_eq!((answer.status.as_u16(), &json(&answer)["error"]["code"]), (200, &json!(-32601)));
}

#[tokio::test]
async fn client_of_the_newer_era_needs_no_session_and_its_headers_are_checked() {
    let api = Api::start().await;
    let path = format!("{WORKSPACES}/{}/mcp", api.new_row("a", &[]).await);
    let meta = |version: &str| json!({ "io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {} });
    let discover = |version: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": meta(version) } });
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "server/discover")];
    let result = json(&post(&api, &api.token, &path, &headers, discover(MODERN)).await);
    assert_eq!(result["result"]["supportedVersions"], json!([MODERN]), "{result}");
    assert_eq!(result["result"]["resultType"], "complete");
    let newer = [("mcp-protocol-version", "2099-01-01"), ("mcp-method", "server/discover")];
    let answer = post(&api, &api.token, &path, &newer, discover("2099-01-01")).await;
    assert_eq!((answer.status.as_u16(), &json(&answer)["error"]["code"]), (400, &json!(-32022)));
    // The protocol's own words arrive as they are, not as a problem.
    let answer = post(&api, &api.token, &path, &headers[..1], discover(MODERN)).await;
    assert_eq!((answer.status.as_u16(), &json(&answer)["error"]["code"]), (400, &json!(-32020)));
    assert_eq!(api.call("GET", &path, Some(&api.token), None).await.status, 405);
}

#[tokio::test]
async fn calls_have_the_scopes_checks_and_problems_of_their_routes() {
    let api = Api::start().await;
    let path = format!("{WORKSPACES}/{}/mcp", api.new_row("a", &[]).await);
    let read = api.new_token(&[Scope::AdminRead]).await;
    let call = |name: &str, arguments: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name, "arguments": arguments } });
    for (token, message, expected) in [
        (&read, call("bash", json!({ "command": "true" })), "admin:write"),
        (&read, call("git", json!({ "action": "commit", "message": "m" })), "admin:write"),
        (&api.token, call("read", json!({ "file_path": "a", "colour": "red" })), "colour"),
        (&api.token, call("read", json!({})), "file_path"),
    ] {
        let result = json(&post(&api, token, &path, &[], message).await);
        assert_eq!(result["result"]["isError"], true, "{result}");
        assert!(result["result"]["content"][0]["text"].as_str().unwrap().contains(expected), "{result}");
    }
    let unknown = json(&post(&api, &api.token, &path, &[], call("rm", json!({}))).await);
    assert_eq!(unknown["error"]["code"], -32602);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    post(&api, "emt_none", &path, &[], list.clone()).await.problem(401, "unauthorized");
    let write = api.new_token(&[Scope::AdminWrite]).await;
    post(&api, &write, &path, &[], list).await.problem(403, "missing-scope");
    // Nobody connects to what is not there.
    let nowhere = format!("{WORKSPACES}/{}/mcp", emergent_core::WorkspaceId::generate());
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} });
    post(&api, &api.token, &nowhere, &[], initialize).await.problem(404, "workspace-not-found");
}

#[tokio::test]
async fn the_endpoint_for_all_servers_keeps_each_callers_sessions_apart() {
    let api = Api::start().await;
    let initialize = initialize();
    let refused = post(&api, "emt_none", "/mcp", &[], initialize.clone()).await;
    assert_eq!(refused.status, 401);
    let challenge = refused.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("/.well-known/oauth-protected-resource/mcp"), "{challenge}");

    let (one, other) = (api.new_token(&[Scope::McpUse]).await, api.new_token(&[Scope::McpUse]).await);
    let opened = post(&api, &one, "/mcp", &[], initialize).await;
    assert_eq!(json(&opened)["result"]["serverInfo"]["name"], "emergent");
    let session = [("mcp-session-id", opened.headers["mcp-session-id"].to_str().unwrap())];
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    let listed = post(&api, &one, "/mcp", &session, list.clone()).await;
    assert_eq!(json(&listed)["result"]["tools"], json!([]));
    assert_eq!(post(&api, &other, "/mcp", &session, list).await.status, 404);
    let reader = api.new_token(&[Scope::AdminRead]).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" });
    post(&api, &reader, "/mcp", &[], ping).await.problem(403, "missing-scope");
}

#[tokio::test]
async fn streams_and_sessions_at_mcp_end_with_the_secret_that_opened_them() {
    let api = Api::start().await;
    let initialize = initialize();
    let secret = api.new_token(&[Scope::McpUse]).await;
    let opened = post(&api, &secret, "/mcp", &[], initialize).await;
    let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let request = Request::get("/mcp")
        .header(header::AUTHORIZATION, format!("Bearer {secret}"))
        .header(header::ACCEPT, "text/event-stream")
        .header("mcp-session-id", &session);
    let stream = api.open(request.body(Body::empty()).unwrap()).await;
    assert_eq!(stream.status(), 200);
    // As another server does it, which this one is not told of.
    let hash = TokenSecret::parse(&secret).unwrap().hash();
    let token = api.store.tokens_find_by_hash(&hash).await.unwrap().unwrap();
    let new = TokenSecret::generate();
    api.store.tokens_rotate(token.project, token.id, new.hash()).await.unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(60), stream.into_body().collect()).await;
    assert!(rest.expect("the stream ends").is_ok(), "clients come back to a stream that has ended in order");
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let header = [("mcp-session-id", session.as_str())];
    assert_eq!(post(&api, &secret, "/mcp", &header, ping.clone()).await.status, 401);
    // The gateway is ended beside the stream, not before it.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while post(&api, new.expose(), "/mcp", &header, ping.clone()).await.status != 404 {
        assert!(tokio::time::Instant::now() < deadline, "the session is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_project_with_many_tokens_ends_its_own_sessions_at_mcp_and_no_others() {
    let api = Api::start().await;
    let other = token_of_another_project(&api).await;
    let open = async |token: &str| open_session(&api, token).await;
    let others = open(&other).await;
    let first = api.new_token(&[Scope::McpUse]).await;
    let own = open(&first).await;
    // With the harness's token, these are all that a project may have.
    for _ in 2..1_000 {
        open(&api.new_token(&[Scope::McpUse]).await).await;
    }
    open(&api.token).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let status = async |token: &str, session: &str| {
        post(&api, token, "/mcp", &[("mcp-session-id", session)], ping.clone()).await.status.as_u16()
    };
    assert_eq!(status(&other, &others).await, 200);
    assert_eq!(status(&first, &own).await, 404);
}

#[tokio::test]
async fn a_projects_sessions_at_mcp_are_bounded_whatever_the_number_of_its_tokens() {
    let api = Api::start().await;
    let other = token_of_another_project(&api).await;
    let open = async |token: &str| open_session(&api, token).await;
    let others = open(&other).await;
    let first = api.new_token(&[Scope::McpUse]).await;
    let mut own = Vec::new();
    for _ in 0..4 {
        own.push(open(&first).await);
    }
    // Each token has as many as it may: together 512.
    for _ in 1..128 {
        let token = api.new_token(&[Scope::McpUse]).await;
        for _ in 0..4 {
            open(&token).await;
        }
    }
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let status = async |token: &str, session: &str| {
        post(&api, token, "/mcp", &[("mcp-session-id", session)], ping.clone()).await.status.as_u16()
    };
    assert_eq!(status(&first, &own[0]).await, 200);
    open(&api.new_token(&[Scope::McpUse]).await).await;
    // The one that was used before all others is the one that makes room.
    assert_eq!(status(&first, &own[1]).await, 404);
    for kept in [&own[0], &own[2], &own[3]] {
        assert_eq!(status(&first, kept).await, 200);
    }
    assert_eq!(status(&other, &others).await, 200);
}

#[tokio::test]
async fn what_is_passed_on_at_mcp_counts_as_calls_of_the_project() {
    let api = Api::start_limited(true, Some(RateLimit { per_second: 1, burst: 12 })).await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
    let opened = post(&api, &api.token, "/mcp", &[], initialize).await;
    let session = [("mcp-session-id", opened.headers["mcp-session-id"].to_str().unwrap())];
    let call = |number: u32| json!({ "jsonrpc": "2.0", "id": number, "method": "tools/call", "params": { "name": format!("s{number}__t") } });
    let batch: Vec<Value> = (0..40).map(call).collect();
    let answer = post(&api, &api.token, "/mcp", &session, json!(batch)).await;
    let (passed_on, refused) = ("your project has no MCP server", "calls a second");
    let count = |what: &str| answer.text.matches(what).count();
    assert_eq!(count(passed_on) + count(refused), 40, "{}", answer.text);
    assert!((1..=20).contains(&count(passed_on)), "{}", answer.text);
}
