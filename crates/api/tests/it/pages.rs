//! Pages and probes that need no token.

use axum::{
    body::Body,
    http::{Request, header},
};
use emergent_api::http::problem::ProblemKind;
use http_body_util::BodyExt as _;

use crate::harness::Api;

#[tokio::test]
async fn the_page_of_the_api_loads_nothing_and_names_every_operation() {
    let api = Api::start().await;
    let page = api.call("GET", "/docs", None, None).await;
    assert_eq!(page.status, 200);
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
    for operation in crate::openapi::operations() {
        assert!(page.text.contains(&operation.path), "{}", operation.path);
    }
    for forbidden in ["<script", "src=", "@import"] {
        assert!(!page.text.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn the_first_page_says_what_this_is_and_where_to_go_on() {
    let api = Api::start().await;
    let health = api.call("GET", "/health", None, None).await.json();
    let places = api.call("GET", "/", None, None).await;
    assert_eq!(places.status, 200);
    assert_eq!(places.headers[header::VARY], "accept");
    let places = places.json();
    assert_eq!(places["version"], health["version"]);

    let mut request = Request::get("/").body(Body::empty()).unwrap();
    let accepted = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    request.headers_mut().insert(header::ACCEPT, accepted.parse().unwrap());
    let page = api.send(request).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
    assert!(page.text.contains(health["version"].as_str().unwrap()) && !page.text.contains("<script"));
    for place in ["docs", "openapi", "problems", "health"] {
        let place = places[place].as_str().unwrap();
        assert!(page.text.contains(&format!("href=\"{place}\"")), "{place}");
        assert_eq!(api.call("GET", place, None, None).await.status, 200, "{place}");
    }
}

#[tokio::test]
async fn every_kind_of_problem_has_a_page_at_its_address() {
    let api = Api::start().await;
    let all = api.call("GET", "/problems", None, None).await;
    for kind in ProblemKind::ALL {
        let page = api.call("GET", &kind.address(), None, None).await;
        assert_eq!(page.status, 200);
        assert!(page.text.contains(kind.title()));
        assert!(all.text.contains(&kind.address()));
    }
    api.call("GET", "/problems/nothing", None, None).await.problem(404, "no-such-route");
}

#[tokio::test]
async fn what_needs_no_token_is_the_same_bytes_for_all_who_ask() {
    let api = Api::start().await;
    for path in ["/openapi.json", "/docs", "/problems", "/problems/internal", "/"] {
        let ask = || async {
            let request = Request::get(path).header(header::ACCEPT, "text/html");
            let mut body = api.open(request.body(Body::empty()).unwrap()).await.into_body();
            body.frame().await.unwrap().unwrap().into_data().unwrap()
        };
        let (one, another) = (ask().await, ask().await);
        assert_eq!(one.as_ptr(), another.as_ptr(), "{path} is copied for each request");
    }
}

#[tokio::test]
async fn probes_tell_how_the_server_is() {
    let api = Api::start().await;
    let health = api.call("GET", "/health", None, None).await.json();
    assert_eq!((health["status"].as_str(), health["workspaces_enabled"].as_bool()), (Some("degraded"), Some(true)));
    assert_eq!(api.call("GET", "/ready", None, None).await.json()["ready"], true);
    let document = api.call("GET", "/openapi.json", None, None).await;
    assert_eq!(document.text, emergent_api::openapi_json().unwrap());
}

#[tokio::test]
async fn every_provider_is_listed_and_says_why_it_is_not_to_be_had() {
    let api = Api::start().await;
    let list = api.get("/api/v1/agent/workspaces/providers").await.json();
    let providers: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["provider"].as_str().unwrap()).collect();
    assert_eq!(providers, ["gvisor", "firecracker", "e2b"]);
    assert!(list["items"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
}
