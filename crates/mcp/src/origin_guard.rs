//! The check that keeps web pages of others away: a page whose name was rebound to this machine sends its own `Host`
//! and `Origin`.

use http::{HeaderMap, Uri, header};

use crate::config::BridgeConfig;

/// Whether the `Host` and the `Origin` of a request are allowed.
pub(crate) fn lets_in(config: &BridgeConfig, headers: &HeaderMap, uri: &Uri) -> bool {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(http::uri::Authority::as_str),
    };
    let host_is_ours = match (&config.allowed_hosts, host.and_then(name)) {
        (None, _) => true,
        (Some(allowed), Some(name)) => is_local(name) || allowed.iter().any(|one| one.eq_ignore_ascii_case(name)),
        (Some(_), None) => false,
    };
    let origin_is_ours = match (&config.allowed_origins, headers.get(header::ORIGIN).map(|origin| origin.to_str())) {
        (None, _) | (Some(_), None) => true,
        (Some(_), Some(Err(_))) => false,
        (Some(allowed), Some(Ok(origin))) => {
            let local = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme)).and_then(name);
            local.is_some_and(is_local) || allowed.iter().any(|one| one.eq_ignore_ascii_case(origin))
        }
    };
    host_is_ours && origin_is_ours
}

/// The name in `name:port`.
fn name(authority: &str) -> Option<&str> {
    let name = match authority.strip_prefix('[') {
        Some(rest) => authority.get(..rest.find(']')? + 2)?,
        None => authority.split(':').next()?,
    };
    let port = authority.get(name.len()..)?;
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    (is_port && !name.is_empty()).then_some(name)
}

fn is_local(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_and_those_allowed_come_in() {
        let config = BridgeConfig {
            allowed_hosts: Some(vec!["mcp.example.org".to_owned()]),
            allowed_origins: Some(vec!["https://ui.example.org".to_owned()]),
            ..BridgeConfig::default()
        };
        for (host, origin, expected) in [
            ("localhost:80", None, true),
            ("127.0.0.1", None, true),
            ("[::1]:8080", Some("http://[::1]:8080"), true),
            ("MCP.example.org:443", Some("https://ui.example.org"), true),
            ("evil.example.com", None, false),
            ("localhost.evil.example.com", None, false),
            ("localhost:80@evil", None, false),
            ("[::1", None, false),
            ("localhost", Some("http://evil.example.com"), false),
            ("localhost", Some("http://localhost.evil.example.com"), false),
            ("localhost", Some("null"), false),
            ("localhost", Some("https://localhost:3000"), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a value"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a value"));
            }
            assert_eq!(lets_in(&config, &headers, &Uri::from_static("/")), expected, "{host} {origin:?}");
        }
        assert!(!lets_in(&config, &HeaderMap::new(), &Uri::from_static("/")));
    }
}
