//! The places where a request carries its token: `Authorization: Bearer`, `X-API-KEY`, or the cookie of a browser.
//!
//! The layer [`accept`] writes the token of the other places into `Authorization`, so that whatever passes a request on
//! passes the token on. A cookie counts only where no page of another site can have caused the request.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use emergent_auth::TokenSecret;

use crate::http::problem::{ProblemKind, Refusal};

/// The header in which clients of other services send their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The cookie of a browser session.
const COOKIE: &str = "emergent_token";

/// The layer: moves the token of a request into its `Authorization` header. A request whose token cannot be told goes on
/// unchanged, and is refused where its route asks for a token.
pub(crate) async fn accept(mut request: Request, next: Next) -> Response {
    if let Some(secret) = elsewhere(request.method(), request.headers()) {
        let headers = request.headers_mut();
        headers.remove(&API_KEY);
        // A secret of the right form is of visible ASCII.
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", secret.expose())) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }
    next.run(request).await
}

/// Returns the one token that a request carries elsewhere than in `Authorization`.
fn elsewhere(method: &Method, headers: &HeaderMap) -> Option<TokenSecret> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let mut keys = headers.get_all(&API_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) => TokenSecret::parse(key.to_str().ok()?.trim()).ok(),
        (Some(_), Some(_)) => None,
        (None, _) => cookie(headers).filter(|_| is_of_own_page(method, headers)),
    }
}

fn cookie(headers: &HeaderMap) -> Option<TokenSecret> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|pairs| pairs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).and_then(|(_, value)| TokenSecret::parse(value).ok())
}

/// Returns whether a page of this server, or its reader, has caused the request. Browsers send `Sec-Fetch-Site` with
/// every request to a trustworthy address, and `Origin` with every request that changes something. A page whose name
/// was made to resolve to this server has no cookie of the server's.
fn is_of_own_page(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let own = text(header::HOST);
    let is_own = |origin: &str| own.is_some() && origin.split_once("://").map(|(_, authority)| authority) == own;
    match (text(HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some("same-origin"), origin) => origin.map_or(reads, is_own),
        // An address that the reader has typed.
        (Some("none"), None) => reads,
        (Some(_), _) => false,
        (None, Some(origin)) => is_own(origin),
        (None, None) => reads,
    }
}

/// Returns the secret that a request carries in `Authorization`.
pub(super) fn secret(headers: &HeaderMap) -> Result<TokenSecret, Refusal> {
    if headers.contains_key(&API_KEY) {
        return Err(unauthorized("X-API-KEY is not a token, or not the only one of the request"));
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| match cookie(headers) {
        Some(_) => unauthorized("the cookie of a browser counts only for requests of this server's own pages"),
        None => unauthorized("there is no Authorization header"),
    })?;
    if values.next().is_some() {
        return Err(unauthorized("there is more than one Authorization header"));
    }
    let (scheme, credentials) = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().split_once(' '))
        .ok_or_else(|| unauthorized("the Authorization header is not `Bearer` and a token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized("the Authorization header is not of the scheme Bearer"));
    }
    TokenSecret::parse(credentials.trim()).map_err(|error| unauthorized(&error.to_string()))
}

pub(super) fn unauthorized(reason: &str) -> Refusal {
    let detail = format!(
        "{reason}; send `Authorization: Bearer emt_…` with a token of this server (the first one stands in \
         bootstrap-token in its data directory)"
    );
    Refusal::new(ProblemKind::Unauthorized, detail)
}
