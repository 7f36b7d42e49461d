//! Quotas: seen by their project, set by administrators.

use serde_json::json;

use crate::harness::{Api, WORKSPACES};

#[tokio::test]
async fn an_administrator_sets_a_quota_and_its_project_sees_it() {
    let api = Api::start().await;
    let made = r#"{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "research"}"#;
    let stranger = api.post("/api/v1/tokens", made).await.json()["secret"].as_str().unwrap().to_owned();
    let listed = api.call("GET", "/api/v1/projects", Some(&stranger), None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    let path = format!("/api/v1/projects/{}/quota", listed["items"][0]["id"].as_str().unwrap());
    assert_eq!(api.get("/api/v1/projects").await.json()["items"].as_array().unwrap().len(), 2);

    let wanted = r#"{"max_active": 3, "max_cpu": 1.5, "max_memory": "4G", "max_disk": "9G", "max_snapshots": 2}"#;
    api.call("PUT", &path, Some(&stranger), Some(wanted)).await.problem(403, "project-not-allowed");
    let set = api.call("PUT", &path, Some(&api.token), Some(wanted)).await;
    let quota = json!({
        "max_active": 3,
        "max_total": null,
        "max_cpu": 1.5,
        "max_memory": 4_294_967_296_u64,
        "max_pids": null,
        "max_disk": 9_663_676_416_u64,
        "max_mcp_servers": null,
        "max_snapshots": 2,
    });
    assert_eq!((set.status.as_u16(), &set.json()["quota"]), (200, &quota), "{}", set.text);
    let seen = api.call("GET", &path, Some(&stranger), None).await.json();
    assert_eq!(seen["quota"], quota);
    let capacity = api.call("GET", "/api/v1/agent/capacity", Some(&stranger), None).await.json();
    assert_eq!((&capacity["quota"], &capacity["limit"]), (&quota, &json!(10)));

    for (body, field) in [(r#"{"max_active": 1000001}"#, "max_active"), (r#"{"max_cpu": -1}"#, "max_cpu")] {
        assert_eq!(api.call("PUT", &path, Some(&api.token), Some(body)).await.blamed(422, "invalid-value"), [field]);
    }
    let unknown = format!("/api/v1/projects/{}/quota", emergent_core::ProjectId::generate());
    api.call("PUT", &unknown, Some(&api.token), Some("{}")).await.problem(404, "project-not-found");
}

#[tokio::test]
async fn the_capacity_says_when_the_limit_is_near() {
    let api = Api::start().await;
    for number in 0..8 {
        let near = api.get("/api/v1/agent/capacity").await.json();
        assert_eq!((&near["active"], &near["near_limit"]), (&json!(number), &json!(false)), "{near}");
        api.new_row(&format!("a-{number}"), &[]).await;
    }
    let near = api.get("/api/v1/agent/capacity").await.json();
    assert_eq!(
        (&near["used_pct"], &near["near_limit"], &near["used"]["active"]),
        (&json!(80), &json!(true), &json!(8))
    );
    assert_eq!(api.get(WORKSPACES).await.json()["items"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_quota_of_nothing_holds_for_hosted_servers_and_says_how_it_is_raised() {
    let api = Api::start().await;
    let projects = api.get("/api/v1/projects").await.json();
    let path = format!("/api/v1/projects/{}/quota", projects["items"][0]["id"].as_str().unwrap());
    let set = api.call("PUT", &path, Some(&api.token), Some(r#"{"max_memory": 0}"#)).await;
    assert_eq!(set.status.as_u16(), 200, "{}", set.text);
    let server = r#"{"name": "one", "cmd": ["cat"], "resource_limits": {"memory": "8G"}}"#;
    let refused = api.post("/api/v1/mcp/servers", server).await.problem(429, "quota-reached");
    for part in ["max_memory", "8192 MiB", "emergent project quota PROJECT --max-memory"] {
        assert!(refused.detail.contains(part), "{}", refused.detail);
    }
    assert_eq!(api.get("/api/v1/mcp/servers").await.json()["items"], json!([]));

    api.call("PUT", &path, Some(&api.token), Some("{}")).await;
    for number in 0..10 {
        let server = format!(r#"{{"name": "server-{number}", "cmd": ["cat"]}}"#);
        let made = api.post("/api/v1/mcp/servers", &server).await;
        assert!(made.status.is_success(), "{}", made.text);
    }
    let full = api.post("/api/v1/mcp/servers", server).await.problem(429, "limit-reached");
    assert!(full.detail.contains("EMERGENT_MCP_MAX_SERVERS"), "{}", full.detail);
    let used = api.get(&path).await.json()["used"].clone();
    assert_eq!((&used["mcp_servers"], &used["active"]), (&json!(10), &json!(0)), "{used}");
}

#[tokio::test]
async fn figures_of_the_whole_installation_are_the_administrators() {
    let api = Api::start().await;
    let made = r#"{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "another"}"#;
    let made = api.post("/api/v1/tokens", made).await.json();
    let stranger = made["secret"].as_str().unwrap();
    for number in 0..8 {
        api.new_row(&format!("a-{number}"), &[]).await;
    }
    let figures = async |token: &str| {
        let capacity = api.call("GET", "/api/v1/agent/capacity", Some(token), None).await.json();
        let providers = api.call("GET", &format!("{WORKSPACES}/providers"), Some(token), None).await.json();
        let gvisor = providers["items"].as_array().unwrap().iter().find(|it| it["provider"] == "gvisor").unwrap();
        (capacity["active"].clone(), capacity["near_limit"].clone(), gvisor["active_workspaces"].clone())
    };
    assert_eq!(figures(&api.token).await, (json!(8), json!(true), json!(8)));
    assert_eq!(figures(stranger).await, (json!(0), json!(false), json!(0)));
    for path in ["/metrics", "/api/v1/agent/warm-pool"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
        api.call("GET", path, Some(stranger), None).await.problem(403, "project-not-allowed");
    }
}
