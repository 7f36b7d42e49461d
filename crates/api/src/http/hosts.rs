//! The host names that the server answers for.
//!
//! On a loopback address, the `Host` header is the server's only guard against DNS rebinding: a web page whose name is
//! made to resolve to 127.0.0.1.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::http::problem::{ProblemKind, Refusal};

/// The hosts that requests may name. Clones are cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Any host: the server listens on an address that other machines reach.
    Any,
    /// Loopback names and addresses, and these names.
    LoopbackAnd(Arc<[String]>),
}

impl Hosts {
    /// Returns the host names for a listener: names are checked on loopback addresses only. `also` holds the names that
    /// a reverse proxy passes on.
    pub fn for_listener(address: SocketAddr, also: Vec<String>) -> Self {
        if address.ip().is_loopback() { Self::LoopbackAnd(also.into()) } else { Self::Any }
    }

    fn allows(&self, host: &str) -> bool {
        let Self::LoopbackAnd(also) = self else { return true };
        let name = without_port(host);
        let is_loopback = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback
            || name.eq_ignore_ascii_case("localhost")
            || also.iter().any(|other| other.eq_ignore_ascii_case(name))
    }
}

impl Hosts {
    /// Returns whether pages of this host (and port) may use the server.
    pub(crate) fn allows_origin(&self, host: &str) -> bool {
        match self {
            Self::LoopbackAnd(_) => self.allows(host),
            // Tokens are not sent by browsers of themselves, but nobody has asked for pages either.
            Self::Any => Self::LoopbackAnd(Arc::default()).allows(host),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Refuses a request for a host that the server does not answer for; the function of a layer.
pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).or_else(|| {
        request.headers().get(header::HOST).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    // Without any Host (HTTP/1.0) it is no browser that calls.
    match host {
        Some(host) if !hosts.allows(&host) => {
            let detail = format!(
                "the server listens on a loopback address and does not answer for {host:?}; behind a reverse proxy, \
                 name its host in EMERGENT_ALLOWED_HOSTS"
            );
            Refusal::new(ProblemKind::HostNotAllowed, detail).into_response()
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_listener_answers_for_loopback_and_named_hosts_only() {
        let hosts = Hosts::for_listener(([127, 0, 0, 1], 7070).into(), vec!["agents.example".to_owned()]);
        for host in
            ["localhost", "LOCALHOST:7070", "127.0.0.1:7070", "127.8.9.1", "[::1]:7070", "[::1]", "agents.example"]
        {
            assert!(hosts.allows(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7070", "localhost.evil.example", "10.0.0.1", ""] {
            assert!(!hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn a_public_listener_answers_for_any_host() {
        assert!(Hosts::for_listener(([0, 0, 0, 0], 7070).into(), Vec::new()).allows("agents.example"));
    }
}
