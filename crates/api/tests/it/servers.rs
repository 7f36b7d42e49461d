//! Drain mode, and who may switch it.

use crate::harness::{Api, WORKSPACES};

const DRAIN: &str = "/api/v1/admin/drain";

#[tokio::test]
async fn a_draining_server_takes_no_new_workspaces_and_says_so() {
    let api = Api::start().await;
    let drained = api.post(DRAIN, "{}").await;
    assert_eq!((drained.status.as_u16(), drained.json()["draining"].as_bool()), (200, Some(true)), "{}", drained.text);
    let refused = api.post(WORKSPACES, r#"{"base_image": "base:test"}"#).await;
    let problem = refused.problem(503, "server-draining");
    assert!(problem.detail.contains("undrain"), "{}", problem.detail);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(api.get("/ready").await.problem(503, "not-ready").detail.contains("draining"));
    let again = api.call("DELETE", DRAIN, Some(&api.token), None).await;
    assert_eq!(again.json()["draining"].as_bool(), Some(false), "{}", again.text);
    assert_eq!(api.get("/ready").await.status, 200);
}

#[tokio::test]
async fn the_servers_are_the_administrators_business() {
    let api = Api::start().await;
    let servers = api.get("/api/v1/admin/servers").await.json();
    assert_eq!(servers["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (servers["items"][0]["this"].as_bool(), servers["items"][0]["alive"].as_bool()),
        (Some(true), Some(true))
    );
    let made = r#"{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "another"}"#;
    let made = api.post("/api/v1/tokens", made).await.json();
    let stranger = made["secret"].as_str().unwrap();
    for (method, path) in [("GET", "/api/v1/admin/servers"), ("POST", DRAIN), ("DELETE", DRAIN)] {
        api.call(method, path, Some(stranger), None).await.problem(403, "project-not-allowed");
    }
}
