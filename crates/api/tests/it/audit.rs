//! Tests of the audit rows of requests, for every outcome.

use std::time::Duration;

use emergent_store::Scope;
use serde_json::Value;

use crate::harness::{Api, WORKSPACES};

/// Returns the rows that a query finds, once there are as many as expected.
async fn rows(api: &Api, path: &str, expected: usize) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let listed = api.get(path).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        let rows = listed.json()["items"].as_array().unwrap().clone();
        if rows.len() >= expected {
            assert_eq!(rows.len(), expected, "{rows:?}");
            return rows;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {rows:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_refused_call_leaves_one_row_with_its_problem_and_none_of_its_secrets() {
    let api = Api::start().await;
    let id = api.new_row("a", &[]).await;
    let path = format!("{WORKSPACES}/{id}");
    let body = r#"{"command": "KEY=s3cr3t deploy --password s3cr3t", "env": {"TOKEN": "s3cr3t"}}"#;
    api.post(&format!("{path}/bash"), body).await.problem(404, "workspace-not-found");
    let body = r#"{"file_path": "notes.txt", "content": "s3cr3t"}"#;
    api.post(&format!("{path}/write"), body).await.problem(404, "workspace-not-found");

    let rows = rows(&api, &format!("{path}/audit"), 2).await;
    let [write, bash] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(bash["action"], "bash");
    assert_eq!((&bash["kind"], &bash["outcome"]), (&"tool".into(), &"refused".into()));
    assert_eq!(bash["problem"], "workspace-not-found");
    assert_eq!(bash["arguments"], serde_json::json!({ "program": "deploy", "command_bytes": 35 }));
    assert_eq!(bash["workspace_id"], id.to_string());
    assert_eq!(write["arguments"], serde_json::json!({ "file_path": "notes.txt" }));
    assert_eq!(write["bytes_in"], body.len());
    assert!(write["bytes_out"].as_u64().unwrap() > 100 && write["request_id"].is_string(), "{write}");
    assert!(!format!("{rows:?}").contains("s3cr3t"), "{rows:?}");
}

#[tokio::test]
async fn a_call_without_the_scope_is_in_the_audit_and_one_without_a_token_is_not() {
    let api = Api::start().await;
    let id = api.new_row("a", &[]).await;
    let reader = api.new_token(&[Scope::AdminRead]).await;
    let path = format!("{WORKSPACES}/{id}/bash");
    let body = Some(r#"{"command": "true"}"#);
    api.call("POST", &path, None, body).await.problem(401, "unauthorized");
    api.call("POST", &path, Some(&reader), body).await.problem(403, "missing-scope");
    api.call("DELETE", &format!("{WORKSPACES}/{id}"), Some(&reader), None).await.problem(403, "missing-scope");
    let rows = rows(&api, "/api/v1/agent/audit", 2).await;
    let told: Vec<_> = rows.iter().map(|row| format!("{} {} {}", row["kind"], row["action"], row["problem"])).collect();
    assert_eq!(told, [r#""lifecycle" "destroy" "missing-scope""#, r#""tool" "bash" "missing-scope""#]);
    assert!(rows.iter().all(|row| row["actor"] != "server"), "{rows:?}");
}

#[tokio::test]
async fn every_change_of_a_workspace_leaves_one_row_whoever_notes_it() {
    let api = Api::start().await;
    api.post(WORKSPACES, r#"{"resource_limits": {"cpu": -1}}"#).await.problem(422, "invalid-value");
    api.post(WORKSPACES, "{}").await.problem(503, "no-provider");
    let unknown = emergent_core::WorkspaceId::generate();
    api.post(&format!("{WORKSPACES}/{unknown}/stop"), "").await.problem(404, "workspace-not-found");
    let rows = rows(&api, "/api/v1/agent/audit?kind=lifecycle", 3).await;
    let told: Vec<_> = rows.iter().map(|row| format!("{} {}", row["action"], row["problem"])).collect();
    assert_eq!(told, [r#""stop" "workspace-not-found""#, r#""create" "no-provider""#, r#""create" "invalid-value""#]);
}

#[tokio::test]
async fn what_another_project_did_is_not_there() {
    let api = Api::start().await;
    api.post(WORKSPACES, "{}").await.problem(503, "no-provider");
    rows(&api, "/api/v1/agent/audit", 1).await;
    let made = r#"{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "another"}"#;
    let made = api.post("/api/v1/tokens", made).await.json();
    let stranger = made["secret"].as_str().unwrap();
    let theirs = api.call("GET", "/api/v1/agent/audit", Some(stranger), None).await.json();
    assert_eq!(theirs["items"], serde_json::json!([]));
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_named() {
    let api = Api::start().await;
    for (query, status, slug, field) in [
        ("kind=x", 400, "invalid-request", "kind"),
        ("outcome=x", 400, "invalid-request", "outcome"),
        ("action=a%00b", 422, "invalid-value", "action"),
        ("limit=0", 422, "invalid-value", "limit"),
        ("cursor=x", 422, "invalid-value", "cursor"),
    ] {
        let answer = api.get(&format!("/api/v1/agent/audit?{query}")).await;
        assert_eq!(answer.blamed(status, slug), [field], "{query}");
    }
    for query in ["since=yesterday", "session=me"] {
        assert!(api.get(&format!("/api/v1/agent/audit?{query}")).await.status.is_client_error(), "{query}");
    }
    let far = "since=-262143-01-01T00:00:00Z&until=%2B262142-12-31T23:59:59Z";
    assert_eq!(api.get(&format!("/api/v1/agent/audit?{far}")).await.status, 200);
}
