//! Tests of who may call.

use axum::{
    body::Body,
    http::{Request, header},
};
use chrono::{TimeDelta, Utc};
use emergent_auth::TokenSecret;
use emergent_store::{NewToken, Scope};

use crate::{
    harness::{Api, WORKSPACES},
    openapi::operations,
};

#[tokio::test]
async fn every_operation_asks_for_the_scopes_that_the_document_names() {
    let api = Api::start().await;
    let read = api.new_token(&[Scope::AdminRead]).await;
    let write = api.new_token(&[Scope::AdminWrite]).await;
    let mcp = api.new_token(&[Scope::McpUse]).await;
    let mut guarded = 0;
    for operation in operations() {
        let (method, path) = (operation.method.as_str(), operation.example_path());
        let scopes = operation.scopes();
        if scopes.is_empty() {
            let answer = api.call(method, &path, None, None).await;
            assert_ne!(answer.status, 401, "{method} {path}");
            continue;
        }
        guarded += 1;
        api.call(method, &path, None, None).await.problem(401, "unauthorized");
        // Who may change everything may use what is there.
        for (token, allows) in
            [(&read, &["admin:read"][..]), (&write, &["admin:write", "mcp:use"]), (&mcp, &["mcp:use"])]
        {
            let answer = api.call(method, &path, Some(token), None).await;
            if scopes.iter().any(|needed| allows.contains(&needed.as_str())) {
                assert!(!matches!(answer.status.as_u16(), 401 | 403), "{method} {path}: {}", answer.text);
            } else {
                let problem = answer.problem(403, "missing-scope");
                assert!(problem.detail.contains(&scopes[0]), "{method} {path}: {}", problem.detail);
            }
        }
    }
    assert!(guarded > 30, "{guarded}");
}

#[tokio::test]
async fn a_git_action_that_changes_something_needs_the_scope_to_write() {
    let api = Api::start().await;
    let read = api.new_token(&[Scope::AdminRead]).await;
    let id = api.new_row("a", &[]).await;
    let path = format!("{WORKSPACES}/{id}/git");
    for body in [r#"{"action": "commit", "message": "m"}"#, r#"{"action": "branch", "name": "b"}"#] {
        api.call("POST", &path, Some(&read), Some(body)).await.problem(403, "missing-scope");
    }
    for body in [r#"{"action": "status"}"#, r#"{"action": "branch"}"#] {
        let answer = api.call("POST", &path, Some(&read), Some(body)).await;
        assert_ne!(answer.status, 403, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_token_of_another_form_or_another_server_is_refused_with_a_challenge() {
    let api = Api::start().await;
    let unknown = TokenSecret::generate();
    let values = ["", "Bearer", "Bearer x", "Basic dTpw", &format!("Bearer {}", unknown.expose()), &api.token];
    for value in values {
        let request = Request::get(WORKSPACES).header(header::AUTHORIZATION, value).body(Body::empty()).unwrap();
        let answer = api.send(request).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"emergent\"");
        assert!(!answer.text.contains(unknown.expose()));
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let api = Api::start().await;
    let secret = TokenSecret::generate();
    let new = NewToken {
        project: api.store.default_project(),
        name: "old".to_owned(),
        scopes: Scope::ALL.to_vec(),
        mcp: None,
        hash: secret.hash(),
        expires_at: Some(Utc::now() - TimeDelta::seconds(1)),
    };
    api.store.tokens_create(new).await.unwrap();
    api.call("GET", WORKSPACES, Some(secret.expose()), None).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_token_is_made_listed_rotated_and_revoked() {
    let api = Api::start().await;
    let made = api.post("/api/v1/tokens", r#"{"name": "ci", "scopes": ["admin:read"]}"#).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.headers[header::CACHE_CONTROL], "no-store");
    let made = made.json();
    let (id, first) = (made["token"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!(api.call("GET", WORKSPACES, Some(first), None).await.status, 200);

    let listed = api.get("/api/v1/tokens").await;
    assert!(listed.text.contains(id) && !listed.text.contains("emt_"), "{}", listed.text);

    let rotated = api.call("POST", &format!("/api/v1/tokens/{id}/rotate"), Some(&api.token), None).await.json();
    let second = rotated["secret"].as_str().unwrap();
    api.call("GET", WORKSPACES, Some(first), None).await.problem(401, "unauthorized");
    assert_eq!(api.call("GET", WORKSPACES, Some(second), None).await.status, 200);

    for _ in 0..2 {
        let revoked = api.call("DELETE", &format!("/api/v1/tokens/{id}"), Some(&api.token), None).await;
        assert_eq!(revoked.status, 204, "{}", revoked.text);
    }
    api.call("GET", WORKSPACES, Some(second), None).await.problem(401, "unauthorized");
    api.call("POST", &format!("/api/v1/tokens/{id}/rotate"), Some(&api.token), None)
        .await
        .problem(404, "token-not-found");
}

#[tokio::test]
async fn a_token_gives_no_more_than_it_has() {
    let api = Api::start().await;
    let write = api.new_token(&[Scope::AdminWrite]).await;
    let body = r#"{"name": "more", "scopes": ["admin:read"]}"#;
    api.call("POST", "/api/v1/tokens", Some(&write), Some(body)).await.problem(403, "missing-scope");
    let both = api.get("/api/v1/tokens").await.json();
    let stronger = both["items"].as_array().unwrap().iter().find(|token| token["scopes"].as_array().unwrap().len() > 1);
    let path = format!("/api/v1/tokens/{}/rotate", stronger.unwrap()["id"].as_str().unwrap());
    api.call("POST", &path, Some(&write), None).await.problem(403, "missing-scope");
}

#[tokio::test]
async fn a_token_may_be_limited_to_mcp_servers_and_their_tools() {
    let api = Api::start().await;
    let body = r#"{"name": "agent", "scopes": ["mcp:use"], "mcp_servers": ["files__read", "clock"]}"#;
    let made = api.post("/api/v1/tokens", body).await.json();
    assert_eq!(made["token"]["mcp_servers"], serde_json::json!(["clock", "files__read"]));
    let tools = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!(r#""files__{n:0>256}""#)).collect();
        names.join(",")
    };
    let many = format!(r#"{{"name": "a", "scopes": ["mcp:use"], "mcp_servers": [{}]}}"#, tools(62));
    assert_eq!(api.post("/api/v1/tokens", &many).await.status, 201);
    for wrong in [
        r#"{"name": "a", "scopes": ["mcp:use"], "mcp_servers": ["No such name"]}"#,
        r#"{"name": "a", "scopes": ["admin:write"], "mcp_servers": ["clock"]}"#,
        &format!(r#"{{"name": "a", "scopes": ["mcp:use"], "mcp_servers": [{}]}}"#, tools(64)),
    ] {
        assert_eq!(api.post("/api/v1/tokens", wrong).await.blamed(422, "invalid-value"), ["mcp_servers"]);
    }
}

#[tokio::test]
async fn a_call_that_ends_its_own_token_is_answered() {
    let api = Api::start().await;
    let made = api.post("/api/v1/tokens", r#"{"name": "ci", "scopes": ["admin:write"]}"#).await.json();
    let (id, first) = (made["token"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let path = format!("/api/v1/tokens/{id}");
    let rotated = api.call("POST", &format!("{path}/rotate"), Some(first), None).await.json();
    let second = rotated["secret"].as_str().unwrap();
    assert_eq!(api.call("DELETE", &path, Some(second), None).await.status, 204);
    api.call("DELETE", &path, Some(second), None).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn administrators_see_and_end_the_tokens_of_other_projects_and_nobody_else_does() {
    let api = Api::start().await;
    let make = async |name: &str, project: &str| {
        let body = format!(r#"{{"name": "{name}", "scopes": ["admin:read", "admin:write"], "project": "{project}"}}"#);
        api.post("/api/v1/tokens", &body).await.json()
    };
    let (red, blue) = (make("red", "team-red").await, make("blue", "team-blue").await);
    let secret = |made: &serde_json::Value| made["secret"].as_str().unwrap().to_owned();
    let path = |made: &serde_json::Value| format!("/api/v1/tokens/{}", made["token"]["id"].as_str().unwrap());
    let names = async |token: &str, query: &str| {
        let list = api.call("GET", &format!("/api/v1/tokens{query}"), Some(token), None).await.json();
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&api.token, "").await, ["blue", "red", "test"]);
    assert_eq!(names(&api.token, "?project=team-red").await, ["red"]);
    assert_eq!(names(&api.token, "?name=blue").await, ["blue"]);
    let first = api.get("/api/v1/tokens?limit=2").await.json();
    let rest = format!("?cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(
        (first["items"].as_array().unwrap().len(), names(&api.token, &rest).await),
        (2, vec!["test".to_owned()])
    );
    assert_eq!(names(&secret(&red), "").await, ["red"]);
    assert_eq!(names(&secret(&red), "?project=team-blue").await, [""; 0]);
    // Another project's token is not there for anybody but them.
    for (method, path) in [("DELETE", path(&blue)), ("POST", format!("{}/rotate", path(&blue)))] {
        api.call(method, &path, Some(&secret(&red)), None).await.problem(404, "token-not-found");
    }
    let rotated = api.call("POST", &format!("{}/rotate", path(&blue)), Some(&api.token), None).await.json();
    assert_eq!(rotated["token"]["project"], "team-blue");
    api.call("GET", WORKSPACES, Some(&secret(&blue)), None).await.problem(401, "unauthorized");
    assert_eq!(api.call("DELETE", &path(&red), Some(&api.token), None).await.status, 204);
    api.call("GET", WORKSPACES, Some(&secret(&red)), None).await.problem(401, "unauthorized");
    assert_eq!(api.call("GET", WORKSPACES, Some(&secret(&rotated)), None).await.status, 200);
}
