//! Tests of the answers to bad input: problems that name the field at fault.

use axum::{
    body::Body,
    http::{Request, header},
};

use crate::harness::{Api, WORKSPACES};

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_a_problem() {
    let api = Api::start().await;
    api.get("/api/v1/nothing").await.problem(404, "no-such-route");
    let answer = api.call("PATCH", WORKSPACES, Some(&api.token), None).await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.headers[header::ALLOW], "POST,GET,HEAD");
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let api = Api::start().await;
    for body in ["{", "[1", "nonsense", "{} {}", "\u{0}", r#"["true"]"#, "null"] {
        let answer = api.post(WORKSPACES, body).await;
        answer.problem(400, "malformed-request");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let request = Request::post(WORKSPACES)
            .header(header::AUTHORIZATION, format!("Bearer {}", api.token))
            .header(header::CONTENT_TYPE, media_type)
            .body(Body::from("{}"))
            .unwrap();
        api.send(request).await.problem(415, "unsupported-media-type");
    }
}

#[tokio::test]
async fn a_field_that_does_not_fit_is_named_with_its_path() {
    let api = Api::start().await;
    let cases = [
        (r#"{"colour": "red"}"#, "colour"),
        (r#"{"name": 5}"#, "name"),
        (r#"{"resource_limits": {"cpus": 2}}"#, "resource_limits.cpus"),
        (r#"{"resource_limits": {"cpu": "two"}}"#, "resource_limits.cpu"),
        (r#"{"labels": {"a": 1}}"#, "labels.a"),
        (r#"{"provider": "docker"}"#, "provider"),
        (r#"{"allow_root": "yes"}"#, "allow_root"),
        (r#"{"name": "a", "name": "b"}"#, "name"),
    ];
    for (body, field) in cases {
        assert_eq!(api.post(WORKSPACES, body).await.blamed(400, "invalid-request"), [field], "{body}");
    }
}

#[tokio::test]
async fn a_value_that_makes_no_sense_is_named_with_all_others() {
    let api = Api::start().await;
    let cases = [
        (r#"{"resource_limits": {"cpu": -1}}"#, "resource_limits.cpu"),
        (r#"{"resource_limits": {"cpu": 1e308}}"#, "resource_limits.cpu"),
        (r#"{"resource_limits": {"memory": -5}}"#, "resource_limits.memory"),
        (r#"{"resource_limits": {"memory": "4X"}}"#, "resource_limits.memory"),
        (r#"{"resource_limits": {"memory": 1}}"#, "resource_limits.memory"),
        (r#"{"resource_limits": {"disk": "9999999T"}}"#, "resource_limits.disk"),
        (r#"{"resource_limits": {"pids": -1}}"#, "resource_limits.pids"),
        (r#"{"ttl_days": -1}"#, "ttl_days"),
        (r#"{"expires_in_seconds": 0}"#, "expires_in_seconds"),
        (r#"{"name": ""}"#, "name"),
        (r#"{"base_image": "not an image"}"#, "base_image"),
        (r#"{"environment": {"A=B": "c"}}"#, "environment.A=B"),
        (r#"{"container_type": "mcp_server"}"#, "container_type"),
    ];
    for (body, field) in cases {
        assert_eq!(api.post(WORKSPACES, body).await.blamed(422, "invalid-value"), [field], "{body}");
    }
    let several = api.post(WORKSPACES, r#"{"name": "", "ttl_days": -1, "expires_in_seconds": 1}"#).await;
    assert_eq!(several.blamed(422, "invalid-value"), ["name", "ttl_days", "expires_in_seconds"]);
}

#[tokio::test]
async fn a_tool_s_numbers_and_names_are_checked_before_the_workspace_is_asked() {
    let api = Api::start().await;
    let id = api.new_row("a", &[]).await;
    let cases = [
        ("bash", r#"{"command": "true", "timeout_ms": 0}"#, 422, "timeout_ms"),
        ("bash", r#"{"command": "true", "timeout_ms": -1}"#, 422, "timeout_ms"),
        ("bash", r#"{"command": "true", "timeout_ms": 86400001}"#, 422, "timeout_ms"),
        ("bash", r#"{"command": ""}"#, 422, "command"),
        ("bash", r#"{"command": "true", "execution_id": "a b"}"#, 422, "execution_id"),
        ("bash", r#"{"comand": "true"}"#, 400, "comand"),
        ("bash", "{}", 400, "command"),
        ("read", r#"{"file_path": "a", "limit": 0}"#, 422, "limit"),
        ("read", r#"{"file_path": ""}"#, 422, "file_path"),
        ("grep", r#"{"pattern": "a", "limit": 10001}"#, 422, "limit"),
        ("edit", r#"{"file_path": "a", "old_string": "", "new_string": "b"}"#, 422, "old_string"),
        ("git", r#"{"action": "log", "limit": 0}"#, 422, "limit"),
        ("processes", r#"{"argv": []}"#, 422, "argv"),
        ("processes", r#"{"argv": ["a"], "command": "a"}"#, 422, "command"),
    ];
    for (tool, body, status, field) in cases {
        let answer = api.post(&format!("{WORKSPACES}/{id}/{tool}"), body).await;
        let slug = if status == 400 { "invalid-request" } else { "invalid-value" };
        assert_eq!(answer.blamed(status, slug), [field], "{tool} {body}");
    }
    for body in [r#"{"action": "status", "colour": 1}"#, r#"{"action": "dance"}"#, r#"{"path": "a"}"#] {
        let problem = api.post(&format!("{WORKSPACES}/{id}/git"), body).await.problem(400, "invalid-request");
        let named = ["colour", "dance", "action"].iter().any(|word| problem.detail.contains(word));
        assert!(named, "{}", problem.detail);
    }
}

#[tokio::test]
async fn a_form_is_read_where_files_are_uploaded_and_refused_where_bytes_are_taken() {
    let api = Api::start().await;
    let id = api.new_row("a", &[]).await;
    let form = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--x--\r\n";
    let send = async |method: &str, path: &str, content_type: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{WORKSPACES}/{id}/{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", api.token))
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body.to_owned()))
            .unwrap();
        api.send(request).await
    };
    let form_type = "multipart/form-data; boundary=x";
    for (method, path) in [("PUT", "files/archive?path=a"), ("POST", "processes/one/stdin")] {
        send(method, path, form_type, form).await.problem(415, "unsupported-media-type");
    }
    // No server drives the row: what is told that it is not there was read.
    for content_type in [form_type, "application/octet-stream", "application/x-www-form-urlencoded"] {
        send("PUT", "files/content?path=a", content_type, form).await.problem(404, "workspace-not-found");
    }
    send("PUT", "files/content?path=a", "multipart/mixed; boundary=x", form)
        .await
        .problem(415, "unsupported-media-type");
    let cut = &form[..form.len() - 60];
    send("PUT", "files/content?path=a", form_type, cut).await.problem(400, "malformed-request");
}

#[tokio::test]
async fn refusals_are_in_the_words_of_whoever_wrote_the_request() {
    let api = Api::start().await;
    let id = api.new_row("a", &[]).await;
    let cases = [
        ("bash", r#"{"command": "true", "timeout_ms": "5"}"#, "it takes a whole number from 0, not the string \"5\""),
        ("bash", r#"{"command": "true", "timeout_ms": 0.5}"#, "it takes a whole number from 0, not the number 0.5"),
        ("bash", r#"{"command": 5}"#, "it takes a string, not the number 5"),
        ("bash", r#"{"command": "  \n"}"#, "it is empty"),
        ("bash", r#"{"command": ""}"#, "it is empty"),
        ("processes", r#"{"command": " "}"#, "it is empty"),
        ("processes", r#"{"argv": [" "]}"#, "it is empty"),
        ("bash", r#"{"command": "true", "env": [], "user": "agent"}"#, "it takes an object, not a list"),
        ("bash", r#"{"command": "true", "env": {}, "environment": {}}"#, "duplicate field"),
    ];
    for (tool, body, expected) in cases {
        let answer = api.post(&format!("{WORKSPACES}/{id}/{tool}"), body).await;
        assert!(answer.text.contains(&expected.replace('"', "\\\"")), "{tool} {body}: {}", answer.text);
    }
    // What is meant is taken: it comes as far as the workspace, whose row no server drives.
    for (tool, body) in [
        ("bash", r#"{"command": "true", "timeout_ms": 5000.0, "environment": {"A": "b"}}"#),
        ("bash", r#"{"command": "true", "timeout_ms": 5e3, "env": {"A": "b"}}"#),
        ("processes", r#"{"command": "true", "environment": {"A": "b"}}"#),
        ("grep", r#"{"pattern": "a", "limit": 10.0}"#),
        ("git", r#"{"action": "log", "limit": 10.0}"#),
    ] {
        api.post(&format!("{WORKSPACES}/{id}/{tool}"), body).await.problem(404, "workspace-not-found");
    }
    for body in [r#"{"env": {"A=B": "c"}}"#, r#"{"environment": {"A=B": "c"}, "ttl_days": 1.0}"#] {
        assert_eq!(api.post(WORKSPACES, body).await.blamed(422, "invalid-value"), ["environment.A=B"]);
    }
}

#[tokio::test]
async fn a_bad_id_names_nothing() {
    let api = Api::start().await;
    for id in
        ["1", "nothing", "..", "01990000-0000-7000-8000-00000000000g", "%00", "01990000-0000-7000-8000-000000000000"]
    {
        api.get(&format!("{WORKSPACES}/{id}")).await.problem(404, "workspace-not-found");
    }
    let path = format!("{WORKSPACES}/01990000-0000-7000-8000-000000000000/processes/a%20b");
    assert_eq!(api.get(&path).await.blamed(400, "invalid-request"), ["execution_id"]);
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_named() {
    let api = Api::start().await;
    let cases = [
        ("colour=red", 400, "colour"),
        ("limit=0", 422, "limit"),
        ("limit=201", 422, "limit"),
        ("limit=-1", 422, "limit"),
        ("limit=many", 422, "limit"),
        ("cursor=nonsense", 422, "cursor"),
        ("state=ready,happy", 422, "state"),
        ("label=novalue", 422, "label"),
        ("provider=docker", 400, "provider"),
        ("include_destroyed=maybe", 422, "include_destroyed"),
    ];
    for (query, status, field) in cases {
        let slug = if status == 400 { "invalid-request" } else { "invalid-value" };
        assert_eq!(api.get(&format!("{WORKSPACES}?{query}")).await.blamed(status, slug), [field], "{query}");
    }
}

#[tokio::test]
async fn an_image_that_the_server_does_not_allow_is_refused() {
    let api = Api::start().await;
    let answer = api.post(WORKSPACES, r#"{"base_image": "other:latest"}"#).await;
    assert_eq!(answer.blamed(403, "image-not-allowed"), ["base_image"]);
}

#[tokio::test]
async fn without_a_provider_nothing_is_made_and_the_reason_is_said() {
    let api = Api::start().await;
    for body in ["{}", r#"{"provider": "auto"}"#] {
        api.post(WORKSPACES, body).await.problem(503, "no-provider");
    }
    for body in [r#"{"provider": "gvisor"}"#, r#"{"provider": "firecracker"}"#] {
        api.post(WORKSPACES, body).await.problem(422, "provider-absent");
    }
    assert_eq!(api.get(WORKSPACES).await.json()["items"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn while_workspaces_are_switched_off_the_variable_is_named() {
    let api = Api::start_with(false).await;
    let id = "01990000-0000-7000-8000-000000000000";
    let answers = [
        api.post(WORKSPACES, "{}").await,
        api.get(WORKSPACES).await,
        api.get(&format!("{WORKSPACES}/{id}")).await,
        api.get(&format!("{WORKSPACES}/providers")).await,
        api.post(&format!("{WORKSPACES}/{id}/bash"), r#"{"command": "true"}"#).await,
        api.post(&format!("{WORKSPACES}/{id}/stop"), "").await,
        api.get(&format!("{WORKSPACES}/{id}/files/stat?path=a")).await,
    ];
    for answer in answers {
        let problem = answer.problem(503, "workspaces-disabled");
        assert!(problem.detail.contains("ENABLE_AGENT_WORKSPACES=true"), "{}", problem.detail);
    }
    assert_eq!(api.get("/health").await.json()["workspaces_enabled"], false);
    assert_eq!(api.get("/api/v1/tokens").await.status, 200);
}

#[tokio::test]
async fn a_loopback_server_answers_for_loopback_hosts_only() {
    let api = Api::start().await;
    let request = |host: &str| Request::get("/health").header(header::HOST, host).body(Body::empty()).unwrap();
    api.send(request("evil.example")).await.problem(421, "host-not-allowed");
    assert_eq!(api.send(request("127.0.0.1:7070")).await.status, 200);
    assert_eq!(api.send(request("agents.example")).await.status, 200);
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_plain_one_is_kept() {
    let api = Api::start().await;
    let request = |id: &str| Request::get("/health").header("x-request-id", id).body(Body::empty()).unwrap();
    assert_eq!(api.send(request("call-7")).await.headers["x-request-id"], "call-7");
    let made = api.send(request("not \"plain\"")).await;
    assert_eq!(made.headers["x-request-id"].len(), 36);
    assert!(api.get("/nothing").await.headers.contains_key("x-request-id"));
}
