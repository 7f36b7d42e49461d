//! The facade: one hosted server's children behind one HTTP endpoint.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use emergent_budget::Limits;
use futures::future::join_all;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    answer::{self, Answer, BridgeBody},
    bridge_state::BridgeState,
    child::{ChildId, LaunchError, Launcher},
    child_connection::Serves,
    config::BridgeConfig,
    envelope::{MOST_VALUES, Malformed, Message},
    event::{BridgeEvent, Era},
    modern::is_modern,
    origin_guard, rpc,
    session::{Head, Session, SessionOwner},
};

/// The interval at which idle sessions and late answers are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// One hosted server, for any number of clients at once.
pub struct Bridge {
    pub(crate) state: Arc<BridgeState>,
}

/// The state of a bridge.
#[derive(Clone, Debug)]
pub struct BridgeStatus {
    /// The server's era, once it is known.
    pub era: Option<Era>,
    /// Open sessions.
    pub sessions: usize,
    /// Children that run, with the requests that each has not answered.
    pub children: Vec<(ChildId, usize)>,
    /// The time at which a child last answered a request.
    pub answered: Option<Instant>,
}

// === impl Bridge ===

impl Bridge {
    /// Takes over the children that still run, and ends those that nobody can use any more.
    ///
    /// # Errors
    /// When the launcher cannot tell which children run.
    pub async fn start(launcher: Arc<dyn Launcher>, config: BridgeConfig) -> Result<Self, LaunchError> {
        let children = launcher.adopt().await?;
        let state = Arc::new(BridgeState::new(launcher, config));
        state.context.config.together.join(&state);
        for child in children {
            state.adopt(child);
        }
        let (weak, stop) = (Arc::downgrade(&state), state.context.stop.clone());
        let sweeping = async move {
            let mut tick = interval(SWEEP);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(state) = weak.upgrade() else { break };
                state.sweep();
            }
        };
        state.context.tasks.spawn(async move { stop.run_until_cancelled(sweeping).await });
        Ok(Self { state })
    }

    /// Answers one request to the endpoint. The answer's body may stream for as long as the client reads it; dropping
    /// the future or the body is how a client goes away.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<BridgeBody>
    where
        B: http_body::Body + Send,
        B::Data: Buf + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let config = &self.state.context.config;
        if !origin_guard::lets_in(config, &head.headers, &head.uri) {
            let text = "this Host or Origin is not let in; see the server's allowed hosts and origins";
            return answer::error(StatusCode::FORBIDDEN, None, rpc::REFUSED, text);
        }
        let owner = head.extensions.get::<SessionOwner>().map(|owner| owner.0.as_ref());
        let known = Head { headers: &head.headers, owner };
        match head.method {
            Method::POST => {}
            Method::GET => return self.state.get(known),
            Method::DELETE => return self.state.delete(known).await,
            _ => return answer::not_allowed("GET, POST, DELETE"),
        }
        let json = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        });
        if !json {
            let text = "the Content-Type of a request is application/json";
            return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, rpc::REFUSED, text);
        }
        let body = match answer::read(body, Limits::json(config.body_limit, MOST_VALUES)).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        self.state.post(known, body).await
    }

    /// The events of the children. A receiver that reads too slowly misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BridgeEvent> {
        self.state.context.listen()
    }

    /// The bridge's state now.
    #[must_use]
    pub fn status(&self) -> BridgeStatus {
        let children = self
            .state
            .connections
            .alive()
            .iter()
            .map(|connection| (connection.id().clone(), connection.in_flight()))
            .collect();
        let answered = self.state.context.answered();
        BridgeStatus { era: self.state.era(), sessions: self.state.sessions().len(), children, answered }
    }

    /// Ends the sessions of an owner who is not let in any more.
    pub async fn end_sessions_of(&self, owner: &str) {
        let is_theirs = |session: &&Session| session.client.owner.as_deref() == Some(owner);
        let theirs: Vec<_> = self.state.sessions().values().filter(is_theirs).cloned().collect();
        for session in &theirs {
            tracing::info!(child = %session.connection.id(), "a session ends with its owner's right to it");
            self.state.end(session);
        }
        if theirs.iter().any(|session| session.connection.serves == Serves::Sessions) {
            self.state.note_shared().await;
        }
    }

    /// Ends all children: each gets EOF, SIGTERM and, at the end of the grace, SIGKILL; requests that a child has not
    /// answered by its end fail. Requests that come later are refused.
    pub async fn shut_down(&self, grace: Duration) {
        self.state.context.tasks.close();
        loop {
            // One that was being started when this began is there in the next round.
            let connections = self.state.connections.alive();
            if connections.is_empty() {
                break;
            }
            join_all(connections.iter().map(|connection| connection.end(grace))).await;
        }
        self.state.context.stop.cancel();
        self.state.context.tasks.wait().await;
    }

    /// Lets go of the children without ending them, so that a later bridge can adopt them.
    pub async fn detach(&self) {
        self.state.context.tasks.close();
        self.state.context.stop.cancel();
        self.state.context.tasks.wait().await;
        self.state.sessions().clear();
        self.state.modern.clear();
        self.state.legacy.clear();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.state.context.stop.cancel();
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("status", &self.status()).finish()
    }
}

impl BridgeState {
    async fn post(self: &Arc<Self>, head: Head<'_>, body: Bytes) -> Answer {
        if self.context.stop.is_cancelled() || self.context.tasks.is_closed() {
            return answer::busy(StatusCode::SERVICE_UNAVAILABLE, None, "the server is shutting down");
        }
        match Message::parse(body.clone()) {
            Ok(message) if message.has_long_name() => answer::long_name(),
            Ok(message) if is_modern(head.headers, &message) => self.modern_post(head.headers, &message).await,
            Ok(message) => self.legacy_post(head, message).await,
            Err(Malformed::Batch) => self.legacy_batch(head, &body).await,
            Err(Malformed::NotJson) => {
                answer::error(StatusCode::BAD_REQUEST, None, rpc::PARSE_ERROR, "the request body is not JSON")
            }
            Err(Malformed::NotAMessage) => {
                let text = "the request body is no JSON-RPC 2.0 message";
                answer::error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, text)
            }
        }
    }
}
