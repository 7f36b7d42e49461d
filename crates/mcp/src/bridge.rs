//! The facade: one hosted server's children behind one HTTP endpoint.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use emergent_budget::Limits;
use futures::future::join_all;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use parking_lot::{Mutex, MutexGuard};
use serde_json::value::RawValue;
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    answer::{self, Answer, BridgeBody},
    child::{ChildId, LaunchError, Launcher},
    child_connection::{ChildConnection, Serves},
    child_record::{ChildRecord, SessionNote},
    config::{BridgeConfig, Sharing},
    context::Context,
    envelope::{Malformed, Message},
    event::{BridgeEvent, Era},
    guard,
    modern::Modern,
    rpc,
    session::{Head, Opened, Session, SessionOwner},
    session_limit::Sessions,
    shared_child::{Initialized, SharedChild},
};

/// How often idle sessions and late answers are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// One hosted server, for any number of clients at once.
pub struct Bridge {
    pub(crate) inner: Arc<Inner>,
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

pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    sessions: Mutex<HashMap<Box<str>, Arc<Session>>>,
    /// The number of places of `max_sessions` that are taken by sessions which are being made.
    starting: AtomicUsize,
    era: Mutex<Option<Era>>,
    /// The child of sessionless requests.
    pub(crate) modern: SharedChild<Modern>,
    /// The child of plain calls to a server of the older era; the shared one, where sessions share.
    pub(crate) warm: SharedChild<Initialized>,
    /// The lock that is held while the note of the shared child is written.
    pub(crate) noting: tokio::sync::Mutex<()>,
}

/// A place among the sessions, given back when it is dropped.
pub(crate) struct SessionSlot<'a>(&'a AtomicUsize);

// === impl Bridge ===

impl Bridge {
    /// Takes over the children that still run, and ends those that nobody can use any more.
    ///
    /// # Errors
    /// When the launcher cannot tell which children run.
    pub async fn start(launcher: Arc<dyn Launcher>, config: BridgeConfig) -> Result<Self, LaunchError> {
        let children = launcher.adopt().await?;
        let era = config.era;
        let inner = Arc::new(Inner {
            context: Arc::new(Context::new(launcher, config)),
            sessions: Mutex::default(),
            starting: AtomicUsize::new(0),
            era: Mutex::new(era),
            modern: SharedChild::default(),
            warm: SharedChild::default(),
            noting: tokio::sync::Mutex::default(),
        });
        inner.context.config.together.join(&inner);
        for child in children {
            let note = ChildRecord::from_child(&child.note());
            let serves = match note {
                Some(ChildRecord::Session(_)) => Serves::Session,
                Some(ChildRecord::Shared(_)) => Serves::Sessions,
                _ => Serves::Requests,
            };
            let Some(link) = ChildConnection::start(&inner.context, child, serves, true) else { continue };
            inner.adopt(&link, note);
        }
        let (weak, stop) = (Arc::downgrade(&inner), inner.context.stop.clone());
        let sweeping = async move {
            let mut tick = interval(SWEEP);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(inner) = weak.upgrade() else { break };
                inner.sweep();
            }
        };
        inner.context.tasks.spawn(async move { stop.run_until_cancelled(sweeping).await });
        Ok(Self { inner })
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
        let config = &self.inner.context.config;
        if !guard::lets_in(config, &head.headers, &head.uri) {
            let text = "this Host or Origin is not let in; see the server's allowed hosts and origins";
            return answer::error(StatusCode::FORBIDDEN, None, rpc::REFUSED, text);
        }
        let owner = head.extensions.get::<SessionOwner>().map(|owner| owner.0.as_ref());
        let known = Head { headers: &head.headers, owner };
        match head.method {
            Method::POST => {}
            Method::GET => return self.inner.get(known),
            Method::DELETE => return self.inner.delete(known).await,
            _ => return answer::not_allowed("GET, POST, DELETE"),
        }
        let json = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        });
        if !json {
            let text = "the Content-Type of a request is application/json";
            return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, rpc::REFUSED, text);
        }
        let body = match answer::read(body, Limits::bytes(config.body_limit)).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        self.inner.post(known, body).await
    }

    /// The events of the children. A receiver that reads too slowly misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BridgeEvent> {
        self.inner.context.listen()
    }

    /// The bridge's state now.
    #[must_use]
    pub fn status(&self) -> BridgeStatus {
        let children = self.inner.context.links().iter().map(|link| (link.id().clone(), link.in_flight())).collect();
        let answered = self.inner.context.answered();
        BridgeStatus { era: self.inner.era(), sessions: self.inner.sessions().len(), children, answered }
    }

    /// Ends the sessions of an owner who is not let in any more.
    pub async fn end_sessions_of(&self, owner: &str) {
        let is_theirs = |session: &&Arc<Session>| session.owner.as_deref() == Some(owner);
        let theirs: Vec<_> = self.inner.sessions().values().filter(is_theirs).cloned().collect();
        for session in &theirs {
            tracing::info!(child = %session.link.id(), "a session ends with its owner's right to it");
            self.inner.end(session);
        }
        if theirs.iter().any(|session| session.link.serves == Serves::Sessions) {
            self.inner.note_shared().await;
        }
    }

    /// Ends all children: each gets EOF, SIGTERM and, at the end of the grace, SIGKILL; requests that a child has not
    /// answered by its end fail. Requests that come later are refused.
    pub async fn shut_down(&self, grace: Duration) {
        self.inner.context.tasks.close();
        loop {
            // One that was being started when this began is there in the next round.
            let links = self.inner.context.links();
            if links.is_empty() {
                break;
            }
            join_all(links.iter().map(|link| link.end(grace))).await;
        }
        self.inner.context.stop.cancel();
        self.inner.context.tasks.wait().await;
    }

    /// Lets go of the children without ending them, so that a later bridge can adopt them.
    pub async fn detach(&self) {
        self.inner.context.tasks.close();
        self.inner.context.stop.cancel();
        self.inner.context.tasks.wait().await;
        self.inner.sessions().clear();
        self.inner.modern.clear();
        self.inner.warm.clear();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.inner.context.stop.cancel();
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("status", &self.status()).finish()
    }
}

// === impl Inner ===

impl Inner {
    async fn post(self: &Arc<Self>, head: Head<'_>, body: Bytes) -> Answer {
        if self.context.stop.is_cancelled() || self.context.tasks.is_closed() {
            return answer::busy(StatusCode::SERVICE_UNAVAILABLE, None, "the server is shutting down");
        }
        match Message::parse(body.clone()) {
            Ok(message) if message.has_long_name() => answer::long_name(),
            Ok(message) if crate::modern::is_modern(head.headers, &message) => {
                self.modern_post(head.headers, &message).await
            }
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

    pub(crate) fn era(&self) -> Option<Era> {
        *self.era.lock()
    }

    /// Remembers the server's era, and tells the owner of it where it is new.
    pub(crate) fn set_era(&self, era: Era) {
        let before = self.era.lock().replace(era);
        if before != Some(era) {
            self.context.tell(BridgeEvent::Era(era));
        }
    }

    /// Takes the server for one of the older era, until the next restart.
    pub(crate) fn assume_legacy(&self) {
        *self.era.lock() = Some(Era::Legacy);
    }

    /// The session of this id and owner, if its child lives.
    pub(crate) fn session(&self, id: &str, owner: Option<&str>) -> Option<Arc<Session>> {
        let session = self.sessions().get(id).filter(|session| session.owner.as_deref() == owner).cloned()?;
        if session.link.is_alive() {
            session.touch();
            return Some(session);
        }
        self.sessions().remove(id);
        None
    }

    /// A place for one more session, if there is one or can be made. A session that is not used makes room, because
    /// many clients go away without a word.
    pub(crate) fn place(&self, owner: Option<&str>) -> Option<SessionSlot<'_>> {
        let config = &self.context.config;
        let most = match config.sharing {
            Sharing::PerSession => config.max_sessions,
            Sharing::Shared => config.max_shared_sessions,
        };
        // Held until the place is counted: two that come at once see each other, here and at other bridges.
        let mut together = config.together.lock();
        if self.taken() >= most {
            // Whoever opens many sessions takes the places of their own first.
            let unused = self.unused().into_iter();
            let oldest = unused.min_by_key(|it| (it.owner.as_deref() != owner, it.used()))?;
            self.make_room(&oldest);
        }
        together.make_room()?;
        self.starting.fetch_add(1, Ordering::AcqRel);
        Some(SessionSlot(&self.starting))
    }

    /// The sessions that neither are connected nor wait for an answer.
    fn unused(&self) -> Vec<Arc<Session>> {
        let sessions = self.sessions();
        sessions.values().filter(|it| !it.link.waits(it) && !it.is_connected()).cloned().collect()
    }

    /// Ends a session that is not used, for one that takes its place.
    fn make_room(&self, unused: &Arc<Session>) {
        tracing::info!(child = %unused.link.id(), "a session that is not used makes room");
        self.end(unused);
    }

    /// Adds a session to those that requests can name.
    pub(crate) fn add(&self, session: Arc<Session>) {
        self.sessions().insert(session.id.clone(), session);
    }

    /// Ends a session, and its child where it has one of its own.
    pub(crate) fn end(&self, session: &Arc<Session>) {
        self.sessions().remove(&session.id);
        session.close();
        if session.link.serves == Serves::Session {
            session.link.end_soon();
        } else {
            session.link.leave(session);
        }
    }

    /// The ids of the sessions that share the child, each with its owner; the one that was used last comes first.
    pub(crate) fn shared_sessions(&self) -> Vec<(String, Option<String>)> {
        let sessions = self.sessions();
        let mut shared: Vec<_> = sessions.values().filter(|it| it.link.serves == Serves::Sessions).collect();
        shared.sort_by_cached_key(|session| Reverse(session.used()));
        shared.into_iter().map(|it| (it.id.to_string(), it.owner.as_ref().map(ToString::to_string))).collect()
    }

    fn adopt(&self, link: &Arc<ChildConnection>, note: Option<ChildRecord>) {
        let of_session = |opened: Opened<'_>| {
            let limits = self.context.limits(link.serves == Serves::Sessions);
            self.add(Session::new(opened, link, None, limits));
        };
        match note {
            Some(ChildRecord::Session(SessionNote { id, version, owner }))
                if self.context.config.sharing == Sharing::PerSession =>
            {
                of_session(Opened { id: &id, version: &version, owner: owner.as_deref() });
            }
            Some(ChildRecord::Shared(shared)) if self.context.config.sharing == Sharing::Shared => {
                let Ok(result) = RawValue::from_string(shared.result) else { return link.end_soon() };
                for id in &shared.sessions {
                    let owner = shared.owners.get(id).map(String::as_str);
                    of_session(Opened { id, version: &shared.version, owner });
                }
                self.warm.put(Arc::clone(link), Initialized::of(shared.version, result));
            }
            Some(ChildRecord::Modern { versions }) => {
                self.set_era(Era::Modern);
                self.modern.put(Arc::clone(link), Modern::of(versions));
            }
            Some(ChildRecord::Calls { version }) if self.context.config.sharing == Sharing::PerSession => {
                let nothing = RawValue::NULL.to_owned();
                self.warm.put(Arc::clone(link), Initialized::of(version, nothing));
            }
            _ => link.end_soon(),
        }
    }

    /// Ends idle sessions, and answers requests that have waited too long.
    fn sweep(&self) {
        let now = Instant::now();
        for link in self.context.links() {
            link.expire(now);
        }
        let idle_after = self.context.config.idle_after;
        let mut idle = Vec::new();
        self.sessions().retain(|_, session| {
            let alive = session.link.is_alive();
            if alive && now.saturating_duration_since(session.used()) >= idle_after && !session.link.waits(session) {
                idle.push(Arc::clone(session));
            }
            alive
        });
        for session in idle {
            tracing::info!(child = %session.link.id(), "an idle session ends");
            self.end(&session);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.sessions.lock()
    }
}

impl Sessions for Inner {
    fn taken(&self) -> usize {
        let mut sessions = self.sessions();
        sessions.retain(|_, session| session.link.is_alive());
        sessions.len() + self.starting.load(Ordering::Acquire)
    }

    fn oldest_unused(&self) -> Option<Instant> {
        self.unused().iter().map(|session| session.used()).min()
    }

    fn end_oldest_unused(&self) {
        if let Some(oldest) = self.unused().iter().min_by_key(|session| session.used()) {
            self.make_room(oldest);
        }
    }
}

impl Drop for SessionSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
