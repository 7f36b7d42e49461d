//! The state of one bridge: its sessions, its children, and the server's era.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use crate::{
    child::{Child, LaunchError, Launcher},
    child_connection::{Ask, AskError, ChildConnection, Connections, Serves, next_id},
    child_record::{ChildRecord, SessionNote},
    config::{BridgeConfig, Sharing},
    context::Context,
    envelope::{Kind, Message},
    event::{BridgeEvent, Era},
    event_buffer::EventBuffer,
    handshake::{Discovered, Initialized},
    rpc,
    session::Session,
    session_client::Opened,
    session_limit::Sessions,
    shared_child::{EndUnlessKept, SharedChild, StartError},
};

/// The state of one bridge.
pub(crate) struct BridgeState {
    pub(crate) context: Arc<Context>,
    pub(crate) connections: Connections,
    sessions: Mutex<HashMap<Box<str>, Session>>,
    /// The number of places of `max_sessions` that are taken by sessions which are being made.
    starting: AtomicUsize,
    era: Mutex<Option<Era>>,
    /// The child of sessionless requests.
    pub(crate) modern: SharedChild<Discovered>,
    /// The child of plain calls to a server of the older era; the shared one, where sessions share.
    pub(crate) legacy: SharedChild<Initialized>,
    /// The lock that is held while the note of the shared child is written.
    pub(crate) noting: tokio::sync::Mutex<()>,
}

/// A place among the sessions, given back when it is dropped.
pub(crate) struct SessionSlot<'a>(&'a AtomicUsize);

// === impl BridgeState ===

impl BridgeState {
    /// The state of a bridge that has no children yet.
    pub(crate) fn new(launcher: Arc<dyn Launcher>, config: BridgeConfig) -> Self {
        let era = config.era;
        Self {
            context: Arc::new(Context::new(launcher, config)),
            connections: Connections::default(),
            sessions: Mutex::default(),
            starting: AtomicUsize::new(0),
            era: Mutex::new(era),
            modern: SharedChild::default(),
            legacy: SharedChild::default(),
            noting: tokio::sync::Mutex::default(),
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
    pub(crate) fn session(&self, id: &str, owner: Option<&str>) -> Option<Session> {
        let session = self.sessions().get(id).filter(|session| session.client.owner.as_deref() == owner).cloned()?;
        if session.connection.is_alive() {
            session.client.touch();
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
            let oldest = unused.min_by_key(|it| (it.client.owner.as_deref() != owner, it.client.used()))?;
            self.make_room(&oldest);
        }
        together.make_room()?;
        self.starting.fetch_add(1, Ordering::AcqRel);
        Some(SessionSlot(&self.starting))
    }

    /// The sessions that neither are connected nor wait for an answer.
    fn unused(&self) -> Vec<Session> {
        let sessions = self.sessions();
        sessions.values().filter(|it| !it.connection.waits(&it.client) && !it.client.is_connected()).cloned().collect()
    }

    /// Ends a session that is not used, for one that takes its place.
    fn make_room(&self, unused: &Session) {
        tracing::info!(child = %unused.connection.id(), "a session that is not used makes room");
        self.end(unused);
    }

    /// Adds a session to those that requests can name.
    pub(crate) fn add(&self, session: Session) {
        self.sessions().insert(session.client.id.clone(), session);
    }

    /// Ends a session, and its child where it has one of its own.
    pub(crate) fn end(&self, session: &Session) {
        self.sessions().remove(&session.client.id);
        session.client.close();
        if session.connection.serves == Serves::Session {
            session.connection.end_soon();
        } else {
            session.connection.leave(&session.client);
        }
    }

    /// The ids of the sessions that share the child, each with its owner; the one that was used last comes first.
    pub(crate) fn shared_sessions(&self) -> Vec<(String, Option<String>)> {
        let sessions = self.sessions();
        let mut shared: Vec<_> = sessions.values().filter(|it| it.connection.serves == Serves::Sessions).collect();
        shared.sort_by_cached_key(|session| Reverse(session.client.used()));
        let shared = shared.into_iter().map(|session| &session.client);
        shared.map(|client| (client.id.to_string(), client.owner.as_ref().map(ToString::to_string))).collect()
    }

    /// Starts a child, with a guard that ends it unless it is kept.
    pub(crate) async fn launch(&self, serves: Serves) -> Result<(Arc<ChildConnection>, EndUnlessKept), StartError> {
        if self.context.tasks.is_closed() {
            return Err(LaunchError::Unavailable { reason: "it is shutting down".to_owned() }.into());
        }
        let launching = self.context.launcher.launch(ChildRecord::Starting.to_child());
        let limit = self.context.config.start_timeout;
        let child = timeout(limit, launching).await.map_err(|_| StartError::Late(limit.as_secs()))??;
        let taken = || LaunchError::Unavailable { reason: "its stdio is in use".to_owned() };
        let connection =
            ChildConnection::start(&self.context, &self.connections, child, serves, false).ok_or_else(taken)?;
        let guard = EndUnlessKept::new(&connection);
        Ok((connection, guard))
    }

    /// Asks a child a question of the bridge's own and returns the whole answer.
    pub(crate) async fn ask_self(
        &self,
        connection: &ChildConnection,
        method: &str,
        params: &str,
    ) -> Result<Message, StartError> {
        let request = rpc::request(&next_id().to_string(), method, params);
        let request = Message::parse(request).map_err(|_| StartError::Refused("bad parameters".to_owned()))?;
        let gone = || StartError::Exited(connection.exit().unwrap_or_default());
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let limit = self.context.config.start_timeout;
        let ask = Ask { message: &request, event_buffer: &event_buffer, session: None, patience: Some(limit) };
        connection.ask(ask).await.map_err(|error| match error {
            AskError::Gone => gone(),
            other => StartError::Refused(other.to_string()),
        })?;
        while let Some(event) = reader.next().await {
            if let Ok(message) = Message::parse(event.line)
                && matches!(message.kind, Kind::Result | Kind::Error { .. })
            {
                if connection.exit().is_some() {
                    return Err(gone());
                }
                if message.kind == (Kind::Error { code: rpc::TIMED_OUT }) {
                    return Err(StartError::Late(limit.as_secs()));
                }
                return Ok(message);
            }
        }
        Err(gone())
    }

    /// Takes over a child that an earlier bridge has started, and ends the child if nobody can use it any more.
    pub(crate) fn adopt(&self, child: Box<dyn Child>) {
        let note = ChildRecord::from_child(&child.note());
        let serves = match note {
            Some(ChildRecord::Session(_)) => Serves::Session,
            Some(ChildRecord::Shared(_)) => Serves::Sessions,
            _ => Serves::Requests,
        };
        if let Some(connection) = ChildConnection::start(&self.context, &self.connections, child, serves, true) {
            self.use_adopted(&connection, note);
        }
    }

    fn use_adopted(&self, connection: &Arc<ChildConnection>, note: Option<ChildRecord>) {
        let of_session = |opened: Opened<'_>| {
            let limits = self.context.limits(connection.serves == Serves::Sessions);
            self.add(Session::begin(opened, connection, None, limits));
        };
        match note {
            Some(ChildRecord::Session(SessionNote { id, version, owner }))
                if self.context.config.sharing == Sharing::PerSession =>
            {
                of_session(Opened { id: &id, version: &version, owner: owner.as_deref() });
            }
            Some(ChildRecord::Shared(shared)) if self.context.config.sharing == Sharing::Shared => {
                let Ok(result) = RawValue::from_string(shared.result) else { return connection.end_soon() };
                for id in &shared.sessions {
                    let owner = shared.owners.get(id).map(String::as_str);
                    of_session(Opened { id, version: &shared.version, owner });
                }
                self.legacy.put(Arc::clone(connection), Initialized { version: shared.version, result });
            }
            Some(ChildRecord::Modern { versions }) => {
                self.set_era(Era::Modern);
                self.modern.put(Arc::clone(connection), Discovered::of(versions));
            }
            Some(ChildRecord::Calls { version }) if self.context.config.sharing == Sharing::PerSession => {
                let nothing = RawValue::NULL.to_owned();
                self.legacy.put(Arc::clone(connection), Initialized { version, result: nothing });
            }
            _ => connection.end_soon(),
        }
    }

    /// Ends idle sessions, and answers requests that have waited too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for connection in self.connections.alive() {
            connection.expire(now);
        }
        let idle_after = self.context.config.idle_after;
        let mut idle = Vec::new();
        self.sessions().retain(|_, session| {
            let alive = session.connection.is_alive();
            if alive
                && now.saturating_duration_since(session.client.used()) >= idle_after
                && !session.connection.waits(&session.client)
            {
                idle.push(session.clone());
            }
            alive
        });
        for session in idle {
            tracing::info!(child = %session.connection.id(), "an idle session ends");
            self.end(&session);
        }
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Session>> {
        self.sessions.lock()
    }
}

impl Sessions for BridgeState {
    fn taken(&self) -> usize {
        let mut sessions = self.sessions();
        sessions.retain(|_, session| session.connection.is_alive());
        sessions.len() + self.starting.load(Ordering::Acquire)
    }

    fn oldest_unused(&self) -> Option<Instant> {
        self.unused().iter().map(|session| session.client.used()).min()
    }

    fn end_oldest_unused(&self) {
        if let Some(oldest) = self.unused().iter().min_by_key(|session| session.client.used()) {
            self.make_room(oldest);
        }
    }
}

impl Drop for SessionSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
