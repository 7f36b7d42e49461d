//! A session answers to the one who has begun it.

use std::sync::Arc;

use bytes::Bytes;
use emergent_mcp::{Bridge, BridgeConfig, SessionOwner, Sharing};
use http::Request;
use http_body_util::Full;

use crate::support::{bridge, initialize, quick, request};

async fn status(bridge: &Bridge, request: http::request::Builder, owner: Option<&str>, body: &str) -> (u16, String) {
    let mut request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
    if let Some(owner) = owner {
        request.extensions_mut().insert(SessionOwner(owner.into()));
    }
    let answer = bridge.handle(request).await;
    let session = answer.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    (answer.status().as_u16(), session.to_owned())
}

#[tokio::test]
async fn a_session_is_not_there_for_anybody_else() {
    for sharing in [Sharing::PerSession, Sharing::Shared] {
        let bridge: Arc<Bridge> = bridge(BridgeConfig { sharing, ..quick() }).await;
        let opened = status(&bridge, request(&[]), Some("ann"), &initialize("test", "2025-11-25")).await;
        let session = opened.1.as_str();
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let header = [("mcp-session-id", session)];
        for (owner, expected) in [(Some("bob"), 404), (None, 404), (Some("ann"), 200)] {
            assert_eq!(status(&bridge, request(&header), owner, ping).await.0, expected, "{owner:?}");
        }
        let other =
            |method: &str| Request::builder().method(method).uri("http://localhost/").header(header[0].0, session);
        assert_eq!(status(&bridge, other("GET"), Some("bob"), "").await.0, 404);
        assert_eq!(status(&bridge, other("DELETE"), Some("bob"), "").await.0, 404);
        assert_eq!(status(&bridge, other("DELETE"), Some("ann"), "").await.0, 204);
    }
}

#[tokio::test]
async fn an_owners_sessions_end_together_and_nobody_elses() {
    for sharing in [Sharing::PerSession, Sharing::Shared] {
        let bridge: Arc<Bridge> = bridge(BridgeConfig { sharing, ..quick() }).await;
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let mut sessions = Vec::new();
        for owner in ["ann", "ann", "bob"] {
            let opened = status(&bridge, request(&[]), Some(owner), &initialize("test", "2025-11-25")).await;
            sessions.push((owner, opened.1));
        }
        bridge.end_sessions_of("ann").await;
        assert_eq!(bridge.status().sessions, 1);
        for (owner, session) in &sessions {
            let expected = if *owner == "ann" { 404 } else { 200 };
            let header = [("mcp-session-id", session.as_str())];
            assert_eq!(status(&bridge, request(&header), Some(owner), ping).await.0, expected, "{owner}");
        }
    }
}
