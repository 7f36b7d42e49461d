//! The check of callers: with a key, callers that have it may call; without one, programs on this machine may, but web
//! pages may not.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Shared,
    problem::{Kind, Problem},
};

/// The shortest key that is taken.
const SHORTEST_KEY: usize = 16;
/// The header for clients that keep `Authorization` for something else.
const KEY_HEADER: &str = "x-api-key";

/// The callers that the service admits.
#[derive(Debug, Clone)]
pub struct Access {
    key: Option<Arc<ApiKey>>,
    loopback: bool,
}

/// A key, of which only the hash is kept. Its `Debug` hides it.
pub struct ApiKey([u8; 32]);

/// The reason why these settings of access are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The key can be guessed.
    #[error("an API key has at least 16 characters that can be printed; `openssl rand -hex 32` makes one")]
    TooWeak,
    /// Without a key, everybody could call.
    #[error("an address that others reach needs an API key; set one, or listen on a loopback address")]
    Needed,
}

// === impl Access ===

impl Access {
    /// Access for callers of a service that listens on this address.
    ///
    /// # Errors
    /// [`InvalidKey::Needed`] when other hosts could reach the service without a key.
    pub fn new(listen: SocketAddr, key: Option<ApiKey>) -> Result<Self, InvalidKey> {
        let loopback = listen.ip().is_loopback();
        if key.is_none() && !loopback {
            return Err(InvalidKey::Needed);
        }
        Ok(Self { key: key.map(Arc::new), loopback })
    }
}

// === impl ApiKey ===

impl ApiKey {
    /// Takes a key.
    ///
    /// # Errors
    /// [`InvalidKey::TooWeak`] for a key that is too short or has unprintable characters.
    pub fn new(key: &str) -> Result<Self, InvalidKey> {
        let printable = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.len() >= SHORTEST_KEY && printable { Ok(Self(hash(key.as_bytes()))) } else { Err(InvalidKey::TooWeak) }
    }

    /// Whether this is the key. The time depends only on the length of the text.
    fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&hash(given)).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Refuses callers without the key.
pub(super) async fn require_key(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Some(key) = &shared.access.key {
        let given = given_key(request.headers());
        if !given.is_some_and(|given| key.is(given)) {
            let detail = "send the service's key as `Authorization: Bearer KEY` or `X-API-Key: KEY`";
            return Err(Problem::new(Kind::Unauthorized, detail));
        }
    }
    Ok(next.run(request).await)
}

/// Refuses web pages on a service that only its address protects: a page that a browser on this machine shows could
/// send requests here, or have a name of its own lead here.
pub(super) async fn require_local(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if shared.access.key.is_none() && shared.access.loopback {
        let headers = request.headers();
        let host = headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        if !host.as_deref().is_none_or(is_loopback_name) || headers.contains_key(header::ORIGIN) {
            let detail = "without an API key this service answers programs on this machine only, by a loopback name and \
                          without an Origin; set a key to call it from elsewhere";
            return Err(Problem::new(Kind::Foreign, detail));
        }
    }
    Ok(next.run(request).await)
}

fn given_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get(KEY_HEADER) {
        return Some(key.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Whether the `Host` of a request is a loopback name of this machine.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_a_key() {
        assert_eq!(Access::new("0.0.0.0:8080".parse().unwrap(), None).unwrap_err(), InvalidKey::Needed);
        assert!(Access::new("127.0.0.1:8080".parse().unwrap(), None).is_ok());
        assert!(ApiKey::new("short").is_err() && ApiKey::new("0123456789 abcdef").is_err());
        assert!(!format!("{:?}", ApiKey::new("0123456789abcdef").unwrap()).contains('0'));
    }

    #[test]
    fn loopback_names_are_known() {
        for name in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["example.com", "localhost.example.com:80", "10.0.0.1", ""] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }
}
