//! Tests of a request's cost: its body, its time, and how often it comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{Request, header},
};
use emergent_api::http::rates::RateLimit;
use emergent_store::Scope;
use futures::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use http_body_util::BodyExt as _;

use crate::harness::{Answer, Api, CALLS, WORKSPACES};

/// A body without end, and whether anybody has asked for any of it.
fn body() -> (Body, Arc<AtomicBool>) {
    let asked = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&asked);
    let pieces = stream::repeat_with(move || {
        noted.store(true, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_static(b"{"))
    });
    (Body::from_stream(pieces), asked)
}

async fn post(api: &Api, path: &str, token: Option<&str>, body: Body) -> Answer {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    api.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn a_body_is_not_read_before_the_caller_has_the_right() {
    let api = Api::start().await;
    let reader = api.new_token(&[Scope::AdminRead]).await;
    let made = r#"{"name": "t", "scopes": ["admin:read", "admin:write"], "project": "other"}"#;
    let stranger = api.post("/api/v1/tokens", made).await.json()["secret"].as_str().unwrap().to_owned();
    let id = api.new_row("mine", &[]).await;
    for route in ["bash", "exec", "write", "edit", "glob", "processes", "files/mkdir", "attach", "mcp"] {
        let path = format!("{WORKSPACES}/{id}/{route}");
        let nobody = (None, 401, "unauthorized");
        let other = (Some(&stranger), 404, "workspace-not-found");
        // A reader may use those that change nothing.
        let reads = ["glob", "mcp"].contains(&route);
        let weak = (Some(&reader), 403, "missing-scope");
        for (token, status, slug) in [Some(nobody), Some(other), (!reads).then_some(weak)].into_iter().flatten() {
            let (body, asked) = body();
            post(&api, &path, token.map(String::as_str), body).await.problem(status, slug);
            assert!(!asked.load(Ordering::SeqCst), "{route}: the body was read before {slug} was said");
        }
    }
}

#[tokio::test]
async fn each_call_takes_bodies_of_its_own_size() {
    let api = Api::start().await;
    let id = api.new_row("mine", &[]).await;
    for (path, field, mib) in [
        (format!("{WORKSPACES}/{id}/write"), "content", 32),
        (format!("{WORKSPACES}/{id}/bash"), "command", 8),
        (format!("{WORKSPACES}/{id}/glob"), "pattern", 1),
        (WORKSPACES.to_owned(), "name", 1),
    ] {
        let body = format!(r#"{{"{field}": "{}"}}"#, "a".repeat(mib << 20));
        let detail = api.post(&path, &body).await.problem(413, "too-large").detail;
        assert!(detail.contains(&format!("at most {mib}M")), "{path}: {detail}");
    }
    let many = format!(r#"{{"labels": {{{}"a": ""}}}}"#, r#""a": "", "#.repeat(30_000));
    let detail = api.post(WORKSPACES, &many).await.problem(413, "too-large").detail;
    assert!(detail.contains("values"), "{detail}");
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let api = Api::start().await;
    // The token is known from here on, so that nothing is waited for but the body.
    assert_eq!(api.get("/api/v1/agent/capacity").await.status, 200);
    tokio::time::pause();
    let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let started = tokio::time::Instant::now();
    post(&api, WORKSPACES, Some(&api.token), silent).await.problem(408, "body-too-slow");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_project_that_calls_too_often_is_told_when_to_try_again_and_holds_nobody_up() {
    let limit = RateLimit { per_second: 1, burst: 20 };
    let api = Api::start_limited(true, Some(limit)).await;
    let made = r#"{"name": "t", "scopes": ["admin:read"], "project": "other"}"#;
    let other = api.post("/api/v1/tokens", made).await.json()["secret"].as_str().unwrap().to_owned();
    let refused = loop {
        let answer = api.get("/api/v1/agent/capacity").await;
        if answer.status != 200 {
            break answer;
        }
    };
    refused.problem(429, "rate-limited");
    assert!(refused.headers.contains_key(header::RETRY_AFTER), "{:?}", refused.headers);
    assert_eq!(api.call("GET", "/api/v1/agent/capacity", Some(&other), None).await.status, 200);
    assert_eq!(api.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_project_that_has_calls_under_way_on_all_its_connections_leaves_others_theirs() {
    let api = Api::start().await;
    let made = r#"{"name": "t", "scopes": ["admin:read"], "project": "other"}"#;
    let other = api.post("/api/v1/tokens", made).await.json()["secret"].as_str().unwrap().to_owned();
    let silent = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let uploads = (0..=CALLS).map(|_| post(&api, WORKSPACES, Some(&api.token), silent()));
    let mut uploads: FuturesUnordered<_> = uploads.collect();
    let refused = uploads.next().await.unwrap();
    let detail = refused.problem(429, "too-much-under-way").detail;
    assert!(detail.contains(&format!("{CALLS} calls")), "{detail}");
    assert!(refused.headers.contains_key(header::RETRY_AFTER), "{:?}", refused.headers);
    api.get("/api/v1/agent/capacity").await.problem(429, "too-much-under-way");
    assert_eq!(api.call("GET", "/api/v1/agent/capacity", Some(&other), None).await.status, 200);
    drop(uploads);
    assert_eq!(api.get("/api/v1/agent/capacity").await.status, 200);
}

#[tokio::test]
async fn an_answer_made_of_rows_is_held_until_its_reader_has_it_or_not_sent() {
    let api = Api::start().await;
    let value = "v".repeat(255);
    for number in 0..20 {
        let labels: Vec<_> = (0..60).map(|n| format!("key{n}")).collect();
        let labels: Vec<_> = labels.iter().map(|key| (key.as_str(), value.as_str())).collect();
        api.new_row(&format!("large-{number}"), &labels).await;
    }
    let list = || {
        let request = Request::get(WORKSPACES).header(header::AUTHORIZATION, format!("Bearer {}", api.token));
        api.open(request.body(Body::empty()).unwrap())
    };
    let unread = list().await;
    let length = usize::try_from(unread.body().size_hint().exact().unwrap()).unwrap();
    assert!(length > 20 * 60 * 255, "{length}");
    assert_eq!(api.budget.held(), length);
    drop(unread);
    assert_eq!(api.budget.held(), 0);

    let rest = api.budget.account();
    rest.belongs_to(api.store.default_project().as_uuid().as_u128());
    rest.try_hold(72 << 20).unwrap();
    api.get(WORKSPACES).await.problem(429, "too-much-under-way");
    assert_eq!(api.get(&format!("{WORKSPACES}?limit=1")).await.status, 200, "a small one goes on");
}

#[tokio::test]
async fn small_answers_that_nobody_takes_are_held_and_count_as_calls() {
    let api = Api::start().await;
    let unread = || async {
        let request =
            Request::get("/api/v1/agent/capacity").header(header::AUTHORIZATION, format!("Bearer {}", api.token));
        api.open(request.body(Body::empty()).unwrap()).await.into_body()
    };
    let (mut bodies, mut length) = (Vec::new(), 0);
    for _ in 0..CALLS {
        let body = unread().await;
        length += usize::try_from(body.size_hint().exact().unwrap()).unwrap();
        bodies.push(body);
    }
    assert_eq!(api.budget.held(), length);
    // The bytes of one are with a sender now, whose peer does not take them.
    let mut given = bodies.pop().unwrap();
    let bytes = given.frame().await.unwrap().unwrap().into_data().unwrap();
    drop(given);
    api.get("/api/v1/agent/capacity").await.problem(429, "too-much-under-way");
    drop(bytes);
    assert_eq!(api.get("/api/v1/agent/capacity").await.status, 200);
    drop(bodies);
    assert_eq!(api.budget.held(), 0);
}

#[tokio::test]
async fn a_form_whose_file_never_comes_is_refused_before_much_of_it_is_read() {
    let api = Api::start().await;
    let id = api.new_row("mine", &[]).await;
    for beginning in ["a preamble", "--x\r\nContent-Disposition: form-data; name=\"f\"; x=\""] {
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let more = stream::repeat(Bytes::from_static(&[b'y'; 1024]));
        let pieces = stream::iter([Bytes::from_static(beginning.as_bytes())]).chain(more).map(move |piece| {
            count.fetch_add(piece.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece)
        });
        let request = Request::put(format!("{WORKSPACES}/{id}/files/content?path=a"))
            .header(header::AUTHORIZATION, format!("Bearer {}", api.token))
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
        let answer = api.send(request.body(Body::from_stream(pieces)).unwrap()).await;
        let detail = answer.problem(400, "malformed-request").detail;
        assert!(detail.contains("64 KiB before its file"), "{detail}");
        assert!(read.load(Ordering::SeqCst) <= 80 << 10, "{beginning}: {read:?}");
    }
}
