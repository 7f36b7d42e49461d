//! The MCP endpoints of hosted servers, and the metadata that tells clients how to authenticate (RFC 9728).

mod gateway;

use std::sync::{Arc, Weak};

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts as _, Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use emergent_budget::Limits;
use emergent_mcp::{Rebuilt, SessionOwner};
use emergent_mcp_hosting::Hosting;
use emergent_store::TokenId;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use self::gateway::Gateways;
use crate::{
    auth::{Allowed, Caller},
    forward,
    http::{
        extract::read_all,
        observe::Verbatim,
        problem::{ProblemKind, Refusal},
        route::{Routes, USE_MCP, describe, of_mcp_server, of_project, public},
    },
    resources::mcp_servers::call_mcp_server,
    state::ApiState,
};

/// The path of the metadata on how to authenticate at a resource.
const METADATA: &str = "/.well-known/oauth-protected-resource";
/// The most values in a message of a caller with limited rights, as in other JSON bodies.
const MOST_VALUES: usize = 50_000;

/// Returns the routes of all MCP endpoints. The endpoint for all servers asks the endpoints of each.
pub(crate) fn routes(state: &ApiState) -> Routes<ApiState> {
    let (endpoints, metadata) = endpoints()
        .undocumented("/api/v1/mcp/servers/{id}/call", post(call_mcp_server), of_mcp_server(USE_MCP))
        .into_parts();
    let endpoints = endpoints
        .layer(middleware::from_fn_with_state(state.clone(), forward::route))
        .layer(middleware::from_fn_with_state(metadata, describe))
        .with_state(state.clone());
    let gateways = Arc::default();
    tokio::spawn(end_with_tokens(state.tokens().ends(), Arc::downgrade(&gateways), state.hosting().clone()));
    let gateway = gateway::route(gateways, endpoints, state.clone());
    self::endpoints()
        .undocumented(gateway::PATH, gateway, of_project(USE_MCP))
        .undocumented(METADATA, get(self::metadata), public())
        .undocumented("/.well-known/oauth-protected-resource/{*resource}", get(self::metadata), public())
}

/// Ends the MCP sessions of each token that ends, for as long as there are tokens.
async fn end_with_tokens(mut ends: broadcast::Receiver<TokenId>, gateways: Weak<Gateways>, hosting: Hosting) {
    loop {
        let ended = match ends.recv().await {
            Ok(ended) => ended,
            // Nobody can use what is missed, and it ends when it has been idle for long enough.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if let Some(gateways) = gateways.upgrade() {
            gateways.end(ended).await;
        }
        hosting.end_sessions_of(&ended.to_string()).await;
    }
}

fn endpoints() -> Routes<ApiState> {
    Routes::new().undocumented("/api/v1/mcp/servers/{id}/mcp", any(endpoint), of_mcp_server(USE_MCP))
}

/// Serves the endpoint of one server, named by its id or its name.
async fn endpoint(State(state): State<ApiState>, Path(id_or_name): Path<String>, request: Request) -> Response {
    let base = base_of(request.headers(), &state);
    let path = request.uri().path().to_owned();
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &state).await {
        Ok(caller) => caller,
        Err(refusal) => return challenge(refusal, &base, &path),
    };
    let answered = async {
        check_origin(&parts.headers, &state)?;
        let hosting = state.hosting();
        let server = hosting.find(caller.project(), &id_or_name).await?;
        let allowed = Allowed::of(caller.mcp(), &server.name)?;
        // What opens this server is nobody else's business.
        parts.headers.remove(header::AUTHORIZATION);
        parts.extensions.insert(SessionOwner(caller.token_id().to_string().into()));
        let request = Request::from_parts(parts, body);
        let request = if allowed.is_all() { request } else { judged(allowed, request, hosting.body_limit()).await? };
        Ok::<_, Refusal>(hosting.handle(caller.project(), server.id, request).await?)
    };
    match answered.await {
        Ok(mut response) => {
            response.extensions_mut().insert(Verbatim);
            response.map(Body::new)
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Returns a request that calls only what the caller may use, however the server reads it; refuses any other. The body
/// and the headers are written anew, and everything is left out that could make a server read them in another way.
async fn judged(allowed: Allowed<'_>, request: Request, limit: usize) -> Result<Request, Refusal> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.query().is_some() {
        parts.uri = parts.uri.path().parse().unwrap_or_default();
    }
    let Rebuilt { body, headers, .. } = match parts.method {
        Method::POST => {
            let whole = read_all(body, Limits::json(limit, MOST_VALUES)).await?;
            allowed.rebuilt(&whole, &parts.headers)?
        }
        Method::GET | Method::DELETE => Rebuilt::without_body(&parts.headers),
        method => {
            let detail = format!("an MCP endpoint does not take {method}; it takes POST, GET and DELETE");
            return Err(Refusal::new(ProblemKind::MethodNotAllowed, detail));
        }
    };
    parts.headers = headers;
    if !body.is_empty() {
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Refuses requests of web pages in a browser, which must not speak to the server behind the user's back.
fn check_origin(headers: &HeaderMap, state: &ApiState) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()).and_then(|origin| {
        let authority = origin.authority()?;
        Some(authority.as_str().to_owned())
    });
    if host.is_some_and(|host| state.hosts().allows_origin(&host)) {
        return Ok(());
    }
    let detail = "pages of this origin may not use the server; name its host in EMERGENT_ALLOWED_HOSTS if they are to";
    Err(Refusal::new(ProblemKind::OriginNotAllowed, detail))
}

/// Returns the requirements of a resource on its clients: a bearer token. There is no authorization server that issues
/// tokens.
async fn metadata(State(state): State<ApiState>, uri: Uri, headers: HeaderMap) -> Json<Value> {
    let resource = uri.path().strip_prefix(METADATA).unwrap_or_default();
    Json(json!({
        "resource": format!("{}{resource}", base_of(&headers, &state)),
        "resource_name": "Emergent Workspaces",
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp:use"],
        "resource_documentation": format!("{}/docs", base_of(&headers, &state)),
    }))
}

/// Builds a refusal with the address of the metadata on how to authenticate.
fn challenge(refusal: Refusal, base: &str, path: &str) -> Response {
    let error = match refusal.kind() {
        ProblemKind::Unauthorized => "invalid_token",
        ProblemKind::MissingScope => "insufficient_scope",
        _ => return refusal.into_response(),
    };
    let value = format!(r#"Bearer resource_metadata="{base}{METADATA}{path}", error="{error}", scope="mcp:use""#);
    let mut response = refusal.into_response();
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Returns the URL at which the caller reaches this server.
fn base_of(headers: &HeaderMap, state: &ApiState) -> String {
    if let Some(url) = state.public_url() {
        return url.to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // Whatever a caller sends here is shown to nobody but that caller; what could break out of a header is left out.
    let plain = host.filter(|host| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)));
    format!("http://{}", plain.unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    use emergent_store::McpAllowList;

    use super::*;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ok"}}"#;

    async fn passed_on(method: Method, headers: &[(&str, &str)], body: &str) -> Result<Request, ProblemKind> {
        let list = McpAllowList::try_from(vec!["files__ok".to_owned()]).unwrap();
        let allowed = Allowed::of(Some(&list), "files").unwrap();
        let mut request = Request::builder().method(method).uri("/api/v1/mcp/servers/files/mcp?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        judged(allowed, request, 8 << 20).await.map_err(|refusal| refusal.kind())
    }

    #[tokio::test]
    async fn a_limited_caller_says_nothing_in_headers_that_was_not_judged() {
        let evil = [("mcp-method", "tools/call"), ("mcp-name", "evil"), ("mcp-param-a", "1"), ("x-original-url", "/")];
        let batch = format!("[{CALL}]");
        for (method, body) in [(Method::POST, batch.as_str()), (Method::GET, CALL), (Method::DELETE, "")] {
            let request = passed_on(method.clone(), &evil, body).await.unwrap();
            assert!(evil.iter().all(|(name, _)| !request.headers().contains_key(*name)), "{:?}", request.headers());
            assert_eq!(request.uri(), "/api/v1/mcp/servers/files/mcp");
            let sent = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            assert_eq!(sent.is_empty(), method != Method::POST);
        }
        let same = [("mcp-method", "tools/call"), ("mcp-name", "ok"), ("x-http-method-override", "PUT")];
        let request = passed_on(Method::POST, &same, CALL).await.unwrap();
        let headers = request.headers();
        assert_eq!(
            (&headers["mcp-name"], &headers["content-type"]),
            (&"ok".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(!headers.contains_key("x-http-method-override"));
        assert_eq!(passed_on(Method::POST, &evil, CALL).await.err(), Some(ProblemKind::McpToolNotAllowed));
    }

    #[tokio::test]
    async fn a_limited_caller_has_no_method_but_those_of_the_protocol() {
        for method in [Method::PUT, Method::PATCH, Method::HEAD, Method::OPTIONS] {
            for body in ["", CALL] {
                let refused = passed_on(method.clone(), &[], body).await.err();
                assert_eq!(refused, Some(ProblemKind::MethodNotAllowed), "{method}");
            }
        }
        assert_eq!(passed_on(Method::POST, &[], "").await.err(), Some(ProblemKind::McpToolNotAllowed));
    }

    #[tokio::test]
    async fn a_limited_callers_message_has_as_many_values_as_other_bodies() {
        let members = (0..650_000).map(|n| format!(r#","{n}":0"#)).collect::<String>();
        let call = CALL.replacen('}', &format!("{members}}}"), 1);
        assert_eq!(passed_on(Method::POST, &[], &call).await.err(), Some(ProblemKind::TooLarge));
    }
}
