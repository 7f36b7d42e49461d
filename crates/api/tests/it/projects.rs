//! Tests that a project does not see the things of another project.

use emergent_store::Scope;

use crate::{
    harness::{Answer, Api, WORKSPACES},
    openapi::operations,
};

/// Makes a token for a project with another token; returns the server's answer.
async fn make(api: &Api, by: &str, project: &str) -> Answer {
    let body = format!(r#"{{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "{project}"}}"#);
    api.call("POST", "/api/v1/tokens", Some(by), Some(&body)).await
}

/// Makes a token of the project `another`.
async fn stranger(api: &Api) -> String {
    let made = make(api, &api.token, "another").await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_operation_finds_a_workspace_or_a_token_of_another_project() {
    let api = Api::start().await;
    let stranger = stranger(&api).await;
    let workspace = api.new_row("a", &[]).await;
    let shown = api.get(&format!("{WORKSPACES}/{workspace}")).await.text;
    let token = api.get("/api/v1/tokens?project=default").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    let project = api.store.default_project().to_string();
    let snapshot = api.new_snapshot(workspace).await.to_string();
    let server = api.post("/api/v1/mcp/servers", r#"{"name": "own", "cmd": ["cat"]}"#).await;
    let server = server.json()["id"].as_str().unwrap().to_owned();

    let document = serde_json::to_value(emergent_api::openapi()).unwrap();
    let mut tried = 0;
    for operation in operations().into_iter().filter(|operation| operation.path.contains("{id}")) {
        // What is the administrators' alone says so, whatever the id.
        if operation.path.starts_with("/api/v1/admin/") {
            let answer = api.call(&operation.method, &operation.path_of(&token), Some(&stranger), None).await;
            assert!(matches!(answer.status.as_u16(), 400 | 403 | 415), "{}: {}", operation.path, answer.text);
            continue;
        }
        let (id, slug) = match operation.path.as_str() {
            path if path.starts_with(WORKSPACES) => (workspace.to_string(), "workspace-not-found"),
            path if path.starts_with("/api/v1/agent/snapshots") => (snapshot.clone(), "snapshot-not-found"),
            path if path.starts_with("/api/v1/mcp/servers") => (server.clone(), "mcp-server-not-found"),
            path if path.starts_with("/api/v1/projects") => (project.clone(), "project-not-found"),
            _ => (token.clone(), "token-not-found"),
        };
        let (method, path) = (operation.method.as_str(), operation.path_of(&id));
        let body = operation.smallest_body(&document);
        let answer = api.call(method, &path, Some(&stranger), body.as_deref()).await;
        assert_eq!(answer.status, 404, "{method} {path} {body:?}: {}", answer.text);
        answer.problem(404, slug);
        tried += 1;
    }
    assert!(tried > 30, "{tried}");

    for list in [WORKSPACES, "/api/v1/agent/snapshots", "/api/v1/tokens", "/api/v1/mcp/servers"] {
        let listed = api.call("GET", list, Some(&stranger), None).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        let others = [&workspace.to_string(), &token, &snapshot, &server];
        assert!(!others.iter().any(|id| listed.text.contains(*id)), "{}", listed.text);
    }
    assert_eq!(api.get(&format!("{WORKSPACES}/{workspace}")).await.text, shown);
}

#[tokio::test]
async fn a_token_is_of_its_maker_s_project_unless_an_administrator_names_another() {
    let api = Api::start().await;
    let own = api.post("/api/v1/tokens", r#"{"name": "t", "scopes": ["admin:read"]}"#).await.json();
    assert_eq!(own["token"]["project"], "default");
    let stranger = stranger(&api).await;
    let second = make(&api, &api.token, "another").await.json();
    assert_eq!(second["token"]["project"], "another");

    let listed = api.call("GET", "/api/v1/tokens", Some(&stranger), None).await.json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{listed}");
    assert!(items.iter().all(|token| token["project"] == "another"), "{listed}");
}

#[tokio::test]
async fn only_an_administrator_names_another_project() {
    let api = Api::start().await;
    let stranger = stranger(&api).await;
    for project in ["default", "third"] {
        let problem = make(&api, &stranger, project).await.problem(403, "project-not-allowed");
        assert!(problem.detail.contains("of the project another"), "{}", problem.detail);
    }
    let own = make(&api, &stranger, "another").await;
    assert_eq!((own.status.as_u16(), own.json()["token"]["project"].as_str()), (201, Some("another")));

    let reader = api.new_token(&[Scope::AdminRead]).await;
    make(&api, &reader, "third").await.problem(403, "missing-scope");
}

#[tokio::test]
async fn a_project_s_name_is_plain() {
    let api = Api::start().await;
    for name in ["", "a b", "a/b", "é", &"x".repeat(101)] {
        assert_eq!(make(&api, &api.token, name).await.blamed(422, "invalid-value"), ["project"], "{name}");
    }
    assert_eq!(make(&api, &api.token, &format!("A.b_c-{}", "9".repeat(94))).await.status, 201);
}
