//! The REST API: its words, its statuses, and its check of callers.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use emergent_firecracker_manager::{
    NewSandbox, Sandboxes,
    http::{Access, ApiKey, CHANNEL_PROTOCOL, PROBLEM_JSON, router},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::service::Host;

const KEY: &str = "a key of sixteen characters or more";

fn open_to_all(manager: &Sandboxes) -> Router {
    let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    router(manager.clone(), Access::new(address, None).unwrap())
}

/// Sends a request with a JSON body, if any; returns the status, the media type and the JSON.
async fn call(router: &Router, request: &str, body: Option<Value>) -> (StatusCode, String, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080");
    let request = match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    };
    let response = router.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind.unwrap_or_default(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_sandbox_is_made_used_paused_resumed_and_deleted_by_the_words_of_the_page() {
    let host = Host::new();
    let manager = host.start().await;
    let api = open_to_all(&manager);
    let body = json!({ "template": "default", "memory_mb": 256, "vcpu_count": 1, "workspace_id": "mine" });
    let (status, _, made) = call(&api, "POST /sandboxes", Some(body.clone())).await;
    assert_eq!((status, &made["status"], &made["memory_mb"]), (StatusCode::CREATED, &json!("ready"), &json!(256)));
    let id = made["sandbox_id"].as_str().unwrap();
    let (status, _, again) = call(&api, "POST /sandboxes", Some(body)).await;
    assert_eq!((status, &again["sandbox_id"]), (StatusCode::OK, &made["sandbox_id"]));
    let command = json!({ "command": "echo out", "timeout_seconds": 300, "working_dir": "/workspace" });
    let (status, _, ran) = call(&api, &format!("POST /sandboxes/{id}/exec"), Some(command.clone())).await;
    assert_eq!((status, &ran["stdout"], &ran["exit_code"]), (StatusCode::OK, &json!("out\n"), &json!(0)));
    let (status, _, paused) = call(&api, &format!("POST /sandboxes/{id}/pause"), None).await;
    assert_eq!((status, &paused["status"]), (StatusCode::OK, &json!("paused")));
    let (status, kind, refused) = call(&api, &format!("POST /sandboxes/{id}/exec"), Some(command)).await;
    assert_eq!((status, kind.as_str()), (StatusCode::CONFLICT, PROBLEM_JSON));
    assert!(refused["detail"].as_str().unwrap().contains("resume"), "{refused}");
    let (_, _, resumed) = call(&api, &format!("POST /sandboxes/{id}/resume"), None).await;
    assert_eq!(resumed["status"], "ready");
    let (status, _, fork) = call(&api, &format!("POST /sandboxes/{id}/fork"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{fork}");
    let (_, _, all) = call(&api, "GET /sandboxes", None).await;
    assert_eq!(all["sandboxes"].as_array().unwrap().len(), 2);
    let (status, _, gone) = call(&api, &format!("DELETE /sandboxes/{id}"), None).await;
    assert_eq!((status, &gone["status"]), (StatusCode::OK, &json!("destroyed")));
    assert_eq!(call(&api, &format!("GET /sandboxes/{id}"), None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(host.names("snapshots/named").len(), 0, "a fork leaves its snapshot");
}

#[tokio::test]
async fn a_template_that_was_built_anew_is_told_from_what_had_its_name() {
    let host = Host::new();
    let api = open_to_all(&host.start().await);
    let (_, _, before) = call(&api, "GET /templates", None).await;
    assert_eq!(before["templates"], json!(["default"]));
    assert!(before["fingerprints"]["default"].is_string(), "{before}");
    std::fs::write(host.path("new"), "other contents").unwrap();
    std::fs::rename(host.path("new"), host.path("rootfs/default-rootfs.ext4")).unwrap();
    let (_, _, after) = call(&api, "GET /templates", None).await;
    assert_ne!(after["fingerprints"]["default"], before["fingerprints"]["default"]);
    // What no machine can boot has none.
    std::fs::remove_file(host.path("kernels/default-kernel.json")).unwrap();
    let (_, _, without) = call(&api, "GET /templates", None).await;
    assert_eq!((&without["templates"], &without["fingerprints"]), (&json!(["default"]), &json!({})));
}

#[tokio::test]
async fn clients_of_other_services_of_this_interface_find_their_words() {
    let host = Host::new();
    let manager = host.start().await;
    let api = open_to_all(&manager);
    let (_, _, made) = call(&api, "POST /sandboxes", None).await;
    let id = made["sandbox_id"].as_str().unwrap();
    assert_eq!((&made["success"], &made["error"], &made["workspace_id"]), (&json!(true), &Value::Null, &json!(id)));
    let again = json!({ "workspace_id": id, "memory_mb": 512.0 });
    let (status, _, again) = call(&api, "POST /sandboxes", Some(again)).await;
    assert_eq!((status, &again["sandbox_id"]), (StatusCode::OK, &json!(id)));

    let exec = format!("POST /sandboxes/{id}/exec");
    let (_, _, ran) = call(&api, &exec, Some(json!({ "command": "echo out", "environment": {} }))).await;
    assert_eq!((&ran["success"], &ran["error"], &ran["stdout"]), (&json!(true), &Value::Null, &json!("out\n")));
    let (status, _, refused) = call(&api, &exec, Some(json!({ "command": "  " }))).await;
    assert_eq!((status, &refused["success"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(false)));
    assert_eq!(refused["error"], refused["detail"]);
    let (_, _, refused) = call(&api, &exec, Some(json!({ "command": 5 }))).await;
    assert!(refused["error"].as_str().unwrap().contains("it takes a string, not the number 5"), "{refused}");

    let (_, _, list) = call(&api, "GET /sandboxes?format=list", None).await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["sandbox_id"]), (1, &json!(id)));
    let (_, _, all) = call(&api, "GET /sandboxes", None).await;
    assert_eq!((&all["success"], &all["sandboxes"][0]["sandbox_id"]), (&json!(true), &json!(id)));
}

#[tokio::test]
async fn a_form_is_stored_without_its_envelope_and_files_are_read_and_listed_in_other_services_words() {
    let host = Host::new();
    let manager = host.start().await;
    let api = open_to_all(&manager);
    let (_, _, made) = call(&api, "POST /sandboxes", None).await;
    let files = format!("/sandboxes/{}/files", made["sandbox_id"].as_str().unwrap());
    let upload = async |path: &str, content_type: &str, body: &str| {
        let request = Request::post(format!("{files}/{path}")).header(header::HOST, "localhost:8080");
        let request = request.header(header::CONTENT_TYPE, content_type).body(Body::from(body.to_owned())).unwrap();
        let response = api.clone().oneshot(request).await.unwrap();
        let (status, body) = (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes());
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let part = |head: &str, value: &str| format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n");
    let file = part("name=\"file\"; filename=\"up.bin\"", "caf\u{e9}") + "--x--\r\n";
    let form = "multipart/form-data; boundary=x";
    let (status, stored) = upload("upload?path=a", form, &file).await;
    assert_eq!((status, &stored["size"], &stored["success"]), (200, &json!(5), &json!(true)), "{stored}");
    let (status, stored) = upload("upload", form, &(part("name=\"path\"", "/workspace/a") + &file)).await;
    assert_eq!((status, &stored["size"]), (200, &json!(5)), "{stored}");
    assert_eq!(upload("upload", form, &file).await.0, 400, "nobody says where it goes");
    assert_eq!(upload("upload?path=a", "multipart/mixed; boundary=x", &file).await.0, 415);
    assert_eq!(upload("upload?path=a", form, &file[..file.len() - 9]).await.1["success"], false);
    let (_, stored) = upload("upload?path=a", "application/octet-stream", "caf\u{e9}").await;
    assert_eq!(stored["size"], json!(5));

    let (_, _, read) = call(&api, &format!("GET {files}/read?path=a"), None).await;
    assert_eq!((&read["content"], &read["is_base64"]), (&json!("caf\u{e9}"), &json!(false)));
    let (_, _, read) = call(&api, &format!("GET {files}/read?path=a&is_base64=true"), None).await;
    assert_eq!(
        (&read["content"], &read["encoding"], &read["is_base64"]),
        (&json!("Y2Fmw6k="), &json!("base64"), &json!(true))
    );
    let body = json!({ "path": "a", "content": "AAEC", "is_base64": true });
    let (_, _, written) = call(&api, &format!("POST {files}/write"), Some(body)).await;
    assert_eq!((&written["size"], &written["success"]), (&json!(3), &json!(true)), "{written}");
    let (_, _, list) = call(&api, &format!("GET {files}/list"), None).await;
    let kinds: Vec<_> = list["entries"].as_array().unwrap().iter().map(|entry| entry["is_dir"].clone()).collect();
    assert_eq!(kinds, [json!(true), json!(false)]);
    assert_eq!(list["files"], list["entries"]);
}

#[tokio::test]
async fn a_bare_post_makes_a_sandbox_of_the_defaults() {
    let host = Host::new();
    let manager = host.start().await;
    let (status, _, made) = call(&open_to_all(&manager), "POST /sandboxes", None).await;
    assert_eq!((status, &made["template"], &made["memory_mb"]), (StatusCode::CREATED, &json!("default"), &json!(512)));
}

#[tokio::test]
async fn bad_input_is_refused_with_a_problem_and_changes_nothing() {
    let host = Host::new();
    let manager = host.start().await;
    let api = open_to_all(&manager);
    let nobody = "00000000-0000-0000-0000-000000000000";
    let cases = [
        ("POST /sandboxes".to_owned(), json!({ "memory_mb": 1 }), 422),
        ("POST /sandboxes".to_owned(), json!({ "memory_mb": "512" }), 400),
        ("POST /sandboxes".to_owned(), json!({ "vcpu_count": 1000 }), 400),
        ("POST /sandboxes".to_owned(), json!({ "colour": "red" }), 400),
        ("POST /sandboxes".to_owned(), json!([]), 400),
        ("POST /sandboxes".to_owned(), json!({ "template": "../../etc/passwd" }), 422),
        ("POST /sandboxes".to_owned(), json!({ "template": "other" }), 422),
        ("POST /sandboxes".to_owned(), json!({ "snapshot_id": nobody }), 404),
        ("POST /sandboxes/none/exec".to_owned(), json!({ "command": "true" }), 404),
        (format!("POST /sandboxes/{nobody}/exec"), json!({ "command": "true" }), 404),
        (format!("POST /sandboxes/{nobody}/exec"), json!({ "command": "true", "timeout_seconds": 0 }), 422),
        (format!("POST /sandboxes/{nobody}/exec"), json!({ "command": "" }), 422),
        (format!("POST /sandboxes/{nobody}/exec"), json!({}), 400),
        (format!("POST /sandboxes/{nobody}/files/write"), json!({ "path": "", "content": "" }), 400),
        ("POST /nowhere".to_owned(), json!({}), 404),
        ("PATCH /sandboxes".to_owned(), json!({}), 405),
    ];
    for (request, body, expected) in cases {
        let (status, kind, problem) = call(&api, &request, Some(body.clone())).await;
        assert_eq!((status.as_u16(), kind.as_str()), (expected, PROBLEM_JSON), "{request} {body}: {problem}");
        assert!(problem["detail"].is_string() && problem["type"].is_string(), "{problem}");
    }
    assert!(manager.list().is_empty() && host.names("sandboxes").is_empty());
}

#[tokio::test]
async fn no_room_is_503_with_the_reason_and_a_time() {
    let mut host = Host::new();
    host.budget.machines = 1;
    let manager = host.start().await;
    manager.create(NewSandbox::default()).await.unwrap();
    let request = Request::post("/sandboxes").header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let response = open_to_all(&manager).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (_, _, capacity) = call(&open_to_all(&manager), "GET /capacity", None).await;
    assert_eq!((&capacity["running"], &capacity["max_running"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn with_a_key_nothing_but_health_is_answered_without_it() {
    let host = Host::new();
    let manager = host.start().await;
    let key = KEY.replace(' ', "-");
    let access = Access::new("0.0.0.0:8080".parse().unwrap(), Some(ApiKey::new(&key).unwrap())).unwrap();
    let api = router(manager, access);
    let status = |request: axum::http::request::Builder| {
        let request = request.header(header::HOST, "sandboxes.example").body(Body::empty()).unwrap();
        let api = api.clone();
        async move { api.oneshot(request).await.unwrap().status() }
    };
    assert_eq!(status(Request::get("/health")).await, StatusCode::OK);
    for path in ["/sandboxes", "/capacity", "/nowhere"] {
        assert_eq!(status(Request::get(path)).await, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(status(Request::get("/sandboxes").header("x-api-key", "wrong")).await, StatusCode::UNAUTHORIZED);
    let longer = format!("Bearer {key}x");
    assert_eq!(status(Request::get("/sandboxes").header("authorization", longer)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(Request::get("/sandboxes").header("x-api-key", &key)).await, StatusCode::OK);
    let bearer = format!("Bearer {key}");
    assert_eq!(status(Request::get("/sandboxes").header("authorization", bearer)).await, StatusCode::OK);
}

#[tokio::test]
async fn without_a_key_no_web_page_reaches_it() {
    let host = Host::new();
    let manager = host.start().await;
    let api = open_to_all(&manager);
    for (name, value) in [(header::HOST, "rebound.example"), (header::ORIGIN, "https://elsewhere.example")] {
        let request = Request::post("/sandboxes").header(name, value).body(Body::empty()).unwrap();
        assert_eq!(api.clone().oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN, "{value}");
    }
    assert!(manager.list().is_empty());
}

#[tokio::test]
async fn a_channel_is_an_upgrade_to_the_bytes_of_the_guest() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = open_to_all(&manager);
    let server = tokio::spawn(async move { axum::serve(listener, api).await });
    let path = format!("/sandboxes/{}/channel", record.id());
    let plain = call(&open_to_all(&manager), &format!("GET {path}"), None).await;
    assert_eq!(plain.0, StatusCode::UPGRADE_REQUIRED);

    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, CHANNEL_PROTOCOL)
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let guest = emergent_guest_client::Guest::new(std::sync::Arc::new(Nowhere), Some(Box::new(upgraded)));
    assert_eq!(guest.hello().await.unwrap().version, "0");
    server.abort();
}

/// Opens no channel: the first channel is given.
struct Nowhere;

#[async_trait::async_trait]
impl emergent_guest_client::Open for Nowhere {
    async fn open(&self) -> Result<emergent_provider::ByteStream, emergent_provider::ChannelError> {
        Err(emergent_provider::ChannelError::NotRunning)
    }
}
