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

    let wanted = r#"{"max_active": 3, "max_cpu": 1.5, "max_memory": "4G"}"#;
    api.call("PUT", &path, Some(&stranger), Some(wanted)).await.problem(403, "project-not-allowed");
    let set = api.call("PUT", &path, Some(&api.token), Some(wanted)).await;
    let quota = json!({ "max_active": 3, "max_total": null, "max_cpu": 1.5, "max_memory": 4_294_967_296_u64 });
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
        api.new_row("a", &[]).await;
    }
    let near = api.get("/api/v1/agent/capacity").await.json();
    assert_eq!(
        (&near["used_pct"], &near["near_limit"], &near["used"]["active"]),
        (&json!(80), &json!(true), &json!(8))
    );
    assert_eq!(api.get(WORKSPACES).await.json()["items"].as_array().unwrap().len(), 8);
}
