//! Tests of who may call.

use axum::{
    body::Body,
    http::{Request, header},
};
use chrono::{TimeDelta, Utc};
use emergent_auth::TokenSecret;
use emergent_store::{Grants, NewToken, Scope};

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
        grants: Grants::on_project(Scope::ALL.to_vec()),
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

/// The outcome of a call, as far as grants decide it.
#[derive(Debug, PartialEq)]
enum Fate {
    LetIn,
    Refused(u16, &'static str),
}

/// Every operation, for every kind of principal: the grants alone decide, and none is forgotten on any route.
#[tokio::test]
async fn every_operation_asks_every_kind_of_principal_for_its_grants() {
    let api = Api::start().await;
    let (own, other) = (api.new_row("own", &[]).await, api.new_row("other", &[]).await);
    let token = async |fields: &str| {
        let body = format!(r#"{{"name": "t", "scopes": ["admin:read", "admin:write", "mcp:use"]{fields}}}"#);
        let made = api.post("/api/v1/tokens", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["secret"].as_str().unwrap().to_owned()
    };
    let bound = token(&format!(r#", "workspace_id": "{own}""#)).await;
    let reader = token(r#", "tools": ["read"]"#).await;
    let agent = token(r#", "operator": false"#).await;
    let mut seen = 0;
    for operation in operations() {
        let (method, path) = (operation.method.as_str(), operation.path.as_str());
        if operation.scopes().is_empty() {
            continue;
        }
        seen += 1;
        let fate = async |token: &str, id: &str| {
            let answer = api.call(method, &operation.path_of(id), Some(token), None).await;
            // Some answers are no JSON.
            let problem: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let kind = problem["type"].as_str().and_then(|it| it.rsplit('/').next().map(str::to_owned));
            match kind.as_deref() {
                Some("not-granted") => Fate::Refused(answer.status.as_u16(), "not-granted"),
                Some("tool-not-enabled") => Fate::Refused(answer.status.as_u16(), "tool-not-enabled"),
                Some("session-required") => Fate::Refused(answer.status.as_u16(), "session-required"),
                // A row that nothing drives is not found by some operations, whose words are others.
                Some("workspace-not-found") if answer.text.contains("your token is for the workspace") => {
                    Fate::Refused(answer.status.as_u16(), "workspace-not-found")
                }
                _ => Fate::LetIn,
            }
        };
        let of_workspace = path.starts_with("/api/v1/agent/workspaces/{id}");
        let uses_mcp = operation.scopes() == ["mcp:use"];
        let changes = operation.scopes() == ["admin:write"];
        let finds_back = ["/attach", "/detach", "/sessions"].iter().any(|end| path.ends_with(end));
        let of_row = method == "GET" && path == "/api/v1/agent/workspaces/{id}";

        // What is made is the project's, and out of its maker's reach.
        let copies = of_workspace && method == "POST" && (path.ends_with("/snapshots") || path.ends_with("/fork"));
        let is_let_in = of_workspace && !copies || uses_mcp;
        let expected = if is_let_in { Fate::LetIn } else { Fate::Refused(403, "not-granted") };
        assert_eq!(fate(&bound, &own.to_string()).await, expected, "bound: {method} {path}");
        if of_workspace && !copies {
            let expected = Fate::Refused(404, "workspace-not-found");
            assert_eq!(fate(&bound, &other.to_string()).await, expected, "bound elsewhere: {method} {path}");
        }

        let tags = operation.body["tags"][0].as_str().unwrap().to_owned();
        let is_tool = of_workspace && ["tools", "processes", "files"].contains(&tags.as_str());
        let reads_files = tags == "files" && method == "GET" || path.ends_with("/read") || path.contains("/calls/");
        let expected = match (is_tool, reads_files) {
            (true, true) => Fate::LetIn,
            (true, false) => Fate::Refused(403, "tool-not-enabled"),
            (false, _) if !changes || of_workspace && finds_back => Fate::LetIn,
            (false, _) => Fate::Refused(403, "not-granted"),
        };
        assert_eq!(fate(&reader, &other.to_string()).await, expected, "reader: {method} {path}");

        let needs_session = of_workspace && !finds_back && !of_row;
        let expected = if needs_session { Fate::Refused(403, "session-required") } else { Fate::LetIn };
        assert_eq!(fate(&agent, &other.to_string()).await, expected, "agent: {method} {path}");
    }
    assert!(seen > 70, "{seen}");
}

#[tokio::test]
async fn a_token_for_one_workspace_or_some_tools_makes_no_tokens_and_administers_nothing() {
    let api = Api::start().await;
    let id = api.new_row("own", &[]).await;
    for bound in [format!(r#""workspace_id": "{id}""#), r#""tools": ["bash"]"#.to_owned()] {
        let body = format!(r#"{{"name": "t", "scopes": ["admin:read", "admin:write"], {bound}}}"#);
        let made = api.post("/api/v1/tokens", &body).await.json();
        assert_eq!(made["token"]["administrator"], false);
        let secret = made["secret"].as_str().unwrap();
        let more = r#"{"name": "more", "scopes": ["admin:read"]}"#;
        api.call("POST", "/api/v1/tokens", Some(secret), Some(more)).await.problem(403, "not-granted");
        assert_ne!(api.call("GET", "/metrics", Some(secret), None).await.status, 200);
        let both = format!(r#"{{"name": "t", "scopes": ["admin:read"], "administrator": true, {bound}}}"#);
        assert_eq!(api.post("/api/v1/tokens", &both).await.blamed(422, "invalid-value"), ["administrator"]);
    }
    let body = format!(r#"{{"name": "t", "scopes": ["admin:read"], "workspace_id": "{id}"}}"#);
    let bound = api.post("/api/v1/tokens", &body).await.json()["secret"].as_str().unwrap().to_owned();
    let other = api.new_row("other", &[]).await.to_string();
    let show = async |name: &str| api.call("GET", &format!("{WORKSPACES}/{name}"), Some(&bound), None).await;
    assert_eq!(show("own").await.status, 200);
    // The name of another workspace is no better than one that nothing has.
    for name in ["other", "nothing"] {
        let answer = show(name).await;
        answer.problem(404, "workspace-not-found");
        assert!(answer.text.contains(name) && !answer.text.contains(&other), "{}", answer.text);
    }
    let elsewhere =
        r#"{"name": "t", "scopes": ["admin:read"], "workspace_id": "01990000-0000-7000-8000-000000000000"}"#;
    api.post("/api/v1/tokens", elsewhere).await.problem(404, "workspace-not-found");
    let unknown = r#"{"name": "t", "scopes": ["admin:read"], "tools": ["bash", "ssh"]}"#;
    let refused = api.post("/api/v1/tokens", unknown).await;
    assert!(refused.status == 400 && refused.text.contains("ssh") && refused.text.contains("grep"), "{}", refused.text);
}

#[tokio::test]
async fn administration_and_operation_are_granted_by_those_who_have_them() {
    let api = Api::start().await;
    let make = async |token: &str, fields: &str| {
        let body = format!(r#"{{"name": "t", "scopes": ["admin:read", "admin:write"]{fields}}}"#);
        api.call("POST", "/api/v1/tokens", Some(token), Some(&body)).await
    };
    let secret = |made: &serde_json::Value| made["secret"].as_str().unwrap().to_owned();
    // Of the same project, and no administrator.
    let plain = make(&api.token, r#", "administrator": false, "operator": false"#).await.json();
    assert_eq!((&plain["token"]["administrator"], &plain["token"]["operator"]), (&false.into(), &false.into()));
    let plain = secret(&plain);
    assert_eq!(api.call("GET", "/metrics", Some(&plain), None).await.status, 403);
    make(&plain, r#", "administrator": true"#).await.problem(403, "project-not-allowed");
    make(&plain, r#", "operator": true"#).await.problem(403, "not-granted");
    let made = make(&plain, "").await.json();
    assert_eq!((&made["token"]["administrator"], &made["token"]["operator"]), (&false.into(), &false.into()));
    // Of another project, and an administrator.
    let red = make(&api.token, r#", "project": "red", "administrator": true"#).await.json();
    assert_eq!(api.call("GET", "/metrics", Some(&secret(&red)), None).await.status, 200);
    // Nobody takes an administrator's token away, nor makes it theirs, who is none.
    for (method, end) in [("DELETE", ""), ("POST", "/rotate")] {
        let path = format!("/api/v1/tokens/{}{end}", red["token"]["id"].as_str().unwrap());
        let own = make(&api.token, r#", "project": "red""#).await.json();
        assert_eq!(own["token"]["administrator"], false);
        api.call(method, &path, Some(&secret(&own)), None).await.problem(403, "project-not-allowed");
    }
}

#[tokio::test]
async fn a_token_comes_as_bearer_or_as_api_key_and_in_one_place_only() {
    let api = Api::start().await;
    let status = async |headers: &[(&str, &str)]| {
        let mut request = Request::get(WORKSPACES);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    let bearer = format!("Bearer {}", api.token);
    assert_eq!(status(&[("x-api-key", &api.token)]).await, 200);
    assert_eq!(status(&[("x-api-key", "e2b_0123")]).await, 401);
    assert_eq!(status(&[("x-api-key", &api.token), ("x-api-key", &api.token)]).await, 401);
    assert_eq!(status(&[("x-api-key", &api.token), ("authorization", &bearer)]).await, 401);
    // Names in addresses are found, too, before any route is.
    api.new_row("first", &[]).await;
    let request = Request::get(format!("{WORKSPACES}/first")).header("x-api-key", &api.token);
    assert_eq!(api.send(request.body(Body::empty()).unwrap()).await.status, 200);
}

/// A page of another site has the reader's browser send the cookie along.
#[tokio::test]
async fn a_cookie_counts_for_the_server_s_own_pages_alone() {
    let api = Api::start().await;
    let cookie = format!("theme=dark; emergent_token={}", api.token);
    let status = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/api/v1/tokens").header("host", "localhost:7070");
        request = request.header("cookie", &cookie).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if method == "POST" { r#"{"name": "t", "scopes": ["admin:read"]}"# } else { "" };
        api.send(request.body(Body::from(body)).unwrap()).await.status.as_u16()
    };
    let (own, foreign) = (("origin", "http://localhost:7070"), ("origin", "http://evil.example"));
    assert_eq!(status("GET", &[("sec-fetch-site", "none")]).await, 200);
    assert_eq!(status("GET", &[]).await, 200);
    assert_eq!(status("POST", &[("sec-fetch-site", "same-origin"), own]).await, 201);
    assert_eq!(status("POST", &[own]).await, 201);
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(status("POST", &[("sec-fetch-site", site), foreign]).await, 401, "{site}");
        assert_eq!(status("POST", &[("sec-fetch-site", site)]).await, 401, "{site}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(status("GET", &[("sec-fetch-site", site)]).await, 401, "{site}");
    }
    for headers in [&[foreign][..], &[], &[("origin", "null")], &[("origin", "http://localhost:7071")]] {
        assert_eq!(status("POST", headers).await, 401, "{headers:?}");
    }
}
