//! The older era over HTTP (2025-11-25 and before): sessions, streams that can be resumed, requests to the client.
//!
//! ```text
//!  initialize ──▶ session ──▶ POST requests, notifications, answers
//!                    │   ──▶ GET the standing stream, or one that was lost
//!                    └── DELETE, idleness, or the end of its child ──▶ 404 from then on
//! ```

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    answer::{self, Answer, Resumable, ResumePoint},
    bridge_state::BridgeState,
    child_connection::{Ask, AskError, Serves},
    child_record::{ChildRecord, SessionNote, SharedNote},
    config::Sharing,
    envelope::{BATCH_LIMIT, Kind, Message, string_of},
    event::Era,
    event_buffer::{EventBuffer, Reader},
    handshake::{Initialized, client_info},
    rpc,
    session::{Head, Session},
    session_client::{Opened, SessionClient},
    shared_child::{Kept, StartError},
    versions::{LEGACY_VERSIONS, NEWEST_LEGACY},
};

/// The longest name of a capability that is kept for a session, in bytes.
const LONGEST_NAME: usize = 64;
/// The most names of capabilities that are kept for a session.
const MOST_NAMES: usize = 64;
/// The only version with batches.
const BATCHES: &str = "2025-03-26";

const EVENTS: &str = "text/event-stream";

#[derive(Deserialize)]
struct InitializeParams<'a> {
    #[serde(borrow)]
    capabilities: Option<std::collections::HashMap<String, &'a RawValue>>,
}

impl BridgeState {
    /// Answers one message of a client.
    pub(crate) async fn legacy_post(self: &Arc<Self>, head: Head<'_>, message: Message) -> Answer {
        let id = message.raw_id().map(str::to_owned);
        let id = id.as_deref();
        if !answer::accepts(head.headers, "application/json") && !answer::accepts(head.headers, EVENTS) {
            let text = "a client accepts application/json and text/event-stream";
            return answer::error(StatusCode::NOT_ACCEPTABLE, id, rpc::REFUSED, text);
        }
        let initialize = matches!(&message.kind, Kind::Request(method) if method.as_ref() == "initialize");
        if initialize && answer::text(head.headers, &answer::SESSION).is_none() {
            return self.initialize(head.owner, &message).await;
        }
        let session = match self.session_of(head, id) {
            Ok(session) => session,
            Err(refused) => return *refused,
        };
        match message.kind.clone() {
            Kind::Request(method) => self.requests(head.headers, &session, vec![(message, method)]).await,
            Kind::Notification(method) => self.notified(&session, &message, &method).await,
            Kind::Result | Kind::Error { .. } => answered(&session, &message).await,
        }
    }

    /// Answers several messages at once, which one version of the protocol allows.
    pub(crate) async fn legacy_batch(&self, head: Head<'_>, body: &Bytes) -> Answer {
        let refuse = |text: &str| answer::error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, text);
        let session = match self.session_of(head, None) {
            Ok(session) if session.client.version.as_ref() == BATCHES => session,
            Ok(_) => return refuse("this protocol version has no batches; send one message at a time"),
            Err(refused) if refused.status() == StatusCode::NOT_FOUND => return *refused,
            Err(_) => return refuse("batches are not possible here; send one message at a time"),
        };
        let messages: Result<Vec<_>, _> = Message::batch(body).take(BATCH_LIMIT + 1).collect();
        let messages = match messages {
            Ok(messages) if messages.is_empty() => return refuse("the batch is empty"),
            Ok(messages) if messages.len() > BATCH_LIMIT => return refuse("the batch has more than 100 messages"),
            Ok(messages) if messages.iter().any(Message::has_long_name) => return answer::long_name(),
            Ok(messages) => messages,
            Err(_) => return refuse("the batch has something that is no message"),
        };
        let mut requests = Vec::new();
        for message in messages {
            match message.kind.clone() {
                Kind::Request(method) if method.as_ref() == "initialize" => return refuse("initialize comes alone"),
                Kind::Request(method) => requests.push((message, method)),
                Kind::Notification(method) => {
                    self.notified(&session, &message, &method).await;
                }
                Kind::Result | Kind::Error { .. } => {
                    answered(&session, &message).await;
                }
            }
        }
        if requests.is_empty() {
            return with_session(answer::empty(StatusCode::ACCEPTED), &session);
        }
        self.requests(head.headers, &session, requests).await
    }

    /// Answers with the standing stream, or with one that was lost.
    pub(crate) fn get(&self, head: Head<'_>) -> Answer {
        let headers = head.headers;
        if is_newer(headers) {
            return answer::not_allowed("POST");
        }
        if !answer::accepts(headers, EVENTS) {
            return answer::error(StatusCode::NOT_ACCEPTABLE, None, rpc::REFUSED, "GET answers text/event-stream");
        }
        let session = match self.session_of(head, None) {
            Ok(session) => session,
            Err(refused) => return *refused,
        };
        let reader = match answer::last_event(headers, &self.context.boot) {
            Some(ResumePoint::At { stream, from }) => match session.client.resume(stream, from) {
                Some(reader) => reader,
                None => {
                    let text = "this stream is no longer kept; send the request again";
                    return answer::error(StatusCode::BAD_REQUEST, None, rpc::REFUSED, text);
                }
            },
            Some(ResumePoint::Before) | None => session.client.standing.read_on(),
        };
        let events = answer::events(reader, Some(self.resumable()), self.context.config.keep_alive);
        with_session(events, &session)
    }

    /// Ends a session for its client.
    pub(crate) async fn delete(&self, head: Head<'_>) -> Answer {
        if is_newer(head.headers) {
            return answer::not_allowed("POST");
        }
        match self.session_of(head, None) {
            Ok(session) => {
                self.end(&session);
                if session.connection.serves == Serves::Sessions {
                    self.note_shared().await;
                }
                answer::empty(StatusCode::NO_CONTENT)
            }
            Err(refused) => *refused,
        }
    }

    /// Begins a session.
    async fn initialize(self: &Arc<Self>, owner: Option<&str>, message: &Message) -> Answer {
        let id = message.raw_id();
        let Some(_place) = self.place(owner) else {
            let text = "the server's limit of sessions is reached, and all are in use; end one, or try again later";
            return answer::busy(StatusCode::TOO_MANY_REQUESTS, id, text);
        };
        let made = match self.context.config.sharing {
            Sharing::PerSession => self.initialize_own(owner, message).await,
            Sharing::Shared => self.initialize_shared(owner, message).await,
        };
        match made {
            Ok((session, line)) => with_session(answer::json(StatusCode::OK, line), &session),
            Err(Refused::Start(error)) => error.answer(id),
            Err(Refused::Server(line)) => answer::json(StatusCode::OK, line),
        }
    }

    /// Begins a session with a child of its own, which sees the client's `initialize` as it is.
    async fn initialize_own(&self, owner: Option<&str>, message: &Message) -> Result<(Session, Bytes), Refused> {
        let (connection, guard) = self.launch(Serves::Session).await?;
        let limit = self.context.config.start_timeout;
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let ask = Ask { message, event_buffer: &event_buffer, session: None, patience: Some(limit) };
        let gone = || StartError::Exited(connection.exit().unwrap_or_default());
        connection.ask(ask).await.map_err(|error| match error {
            AskError::Gone => gone(),
            other => StartError::Refused(other.to_string()),
        })?;
        let answer = loop {
            let event = reader.next().await.ok_or_else(gone)?;
            match Message::parse(event.line) {
                Ok(message) if matches!(message.kind, Kind::Result | Kind::Error { .. }) => break message,
                // Logs before the answer have no stream yet that they could go to.
                _ => {}
            }
        };
        if connection.exit().is_some() {
            return Err(gone().into());
        }
        match answer.kind {
            Kind::Error { code: rpc::TIMED_OUT } => return Err(StartError::Late(limit.as_secs()).into()),
            Kind::Error { .. } => return Err(Refused::Server(answer.line)),
            _ => {}
        }
        let version = Initialized::read(&answer)?.version;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let opened = Opened { id: &name, version: &version, owner };
        let session = Session::begin(opened, &connection, None, self.context.limits(false));
        let owner = owner.map(str::to_owned);
        connection.note(&ChildRecord::Session(SessionNote { id: name, version, owner })).await;
        guard.keep();
        self.add(session.clone());
        Ok((session, answer.line))
    }

    /// Begins a session with the child that all share.
    async fn initialize_shared(
        self: &Arc<Self>,
        owner: Option<&str>,
        message: &Message,
    ) -> Result<(Session, Bytes), Refused> {
        let (connection, known) = self.legacy_child().await?;
        let params = message.params_text().and_then(|params| serde_json::from_str::<InitializeParams<'_>>(params).ok());
        let capabilities: HashSet<String> =
            params.and_then(|params| params.capabilities).map(|all| known_names(all.into_keys())).unwrap_or_default();
        let name = uuid::Uuid::new_v4().simple().to_string();
        let opened = Opened { id: &name, version: &known.version, owner };
        let session = Session::begin(opened, &connection, Some(capabilities), self.context.limits(true));
        self.add(session.clone());
        self.note_shared().await;
        let id = message.raw_id().unwrap_or("null");
        Ok((session, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, known.result).into()))
    }

    /// The warm child of the older era, initialized by us: for plain calls and, where sessions share it, for them.
    pub(crate) async fn legacy_child(self: &Arc<Self>) -> Result<Kept<Initialized>, StartError> {
        let state = Arc::clone(self);
        self.legacy.alive_or_started(&self.context, || async move { state.start_legacy().await }).await
    }

    async fn start_legacy(&self) -> Result<Kept<Initialized>, StartError> {
        let shared = self.context.config.sharing == Sharing::Shared;
        let (connection, guard) = self.launch(if shared { Serves::Sessions } else { Serves::Requests }).await?;
        // Sessions that share a child may have any of these; a request goes to none that has not.
        let capabilities =
            if shared { r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{}}"# } else { "{}" };
        let client = client_info();
        let params =
            format!(r#"{{"protocolVersion":"{NEWEST_LEGACY}","capabilities":{capabilities},"clientInfo":{client}}}"#);
        let message = self.ask_self(&connection, "initialize", &params).await?;
        let initialized = Initialized::read(&message)?;
        let notification = rpc::notification("notifications/initialized", "{}");
        connection.send(notification).await.map_err(|_| StartError::Exited(connection.exit().unwrap_or_default()))?;
        let version = initialized.version.clone();
        connection
            .note(&if shared {
                ChildRecord::Shared(SharedNote::of(version, initialized.result.get().to_owned(), Vec::new()))
            } else {
                ChildRecord::Calls { version }
            })
            .await;
        guard.keep();
        Ok(self.legacy.put(connection, initialized))
    }

    /// Writes the sessions that share the child into its note.
    pub(crate) async fn note_shared(&self) {
        // The last note that is written must be the newest: who comes second lists the sessions after the first has
        // written.
        let _noting = self.noting.lock().await;
        if let Some((connection, known)) = self.legacy.alive() {
            let (version, result) = (known.version.clone(), known.result.get().to_owned());
            connection.note(&ChildRecord::Shared(SharedNote::of(version, result, self.shared_sessions()))).await;
        }
    }

    /// Sends requests whose answers come on one stream.
    async fn requests(&self, headers: &HeaderMap, session: &Session, requests: Vec<(Message, Box<str>)>) -> Answer {
        let one = requests.len() == 1;
        let (event_buffer, reader) = session.client.open(requests.len());
        for (message, method) in &requests {
            if session.connection.serves == Serves::Sessions && !subscribed(&session.client, message, method) {
                let text = "this session has subscribed to too many resources";
                event_buffer.push_now(rpc::error(message.raw_id(), rpc::INVALID_REQUEST, text), true);
                continue;
            }
            if method.as_ref() == "resources/unsubscribe" && session.connection.others_want(&session.client, message) {
                event_buffer.push_now(rpc::empty_result(message.raw_id().unwrap_or("null")), true);
                continue;
            }
            let patience = Some(self.context.config.call_timeout);
            let ask = Ask { message, event_buffer: &event_buffer, session: Some(&session.client), patience };
            if let Err(error) = session.connection.ask(ask).await {
                let (status, code) = match error {
                    AskError::Gone => (StatusCode::NOT_FOUND, rpc::TIMED_OUT),
                    AskError::Busy | AskError::Unheld(_) => (StatusCode::TOO_MANY_REQUESTS, rpc::REFUSED),
                    AskError::Deaf => (StatusCode::GATEWAY_TIMEOUT, rpc::TIMED_OUT),
                    AskError::SameId => (StatusCode::BAD_REQUEST, rpc::INVALID_REQUEST),
                };
                if one {
                    return answer::error(status, message.raw_id(), code, &error.to_string());
                }
                event_buffer.push_now(rpc::error(message.raw_id(), code, &error.to_string()), true);
            }
        }
        let takes = |kind| answer::accepts(headers, kind);
        let answer = self.answer(reader, one, takes("application/json"), takes(EVENTS)).await;
        with_session(answer, session)
    }

    /// The answer as JSON when it is there soon and alone, else as a stream.
    async fn answer(&self, mut reader: Reader, one: bool, json: bool, streams: bool) -> Answer {
        if one
            && json
            && timeout(self.context.config.json_within, reader.only_one()).await == Ok(true)
            && let Some(event) = reader.next().await
        {
            return answer::json_event(StatusCode::OK, event);
        }
        if streams {
            return answer::events(reader, Some(self.resumable()), self.context.config.keep_alive);
        }
        // The client takes no stream: it gets the last message, which is the answer (or all of a batch).
        let mut lines = Vec::new();
        while let Some(event) = reader.next().await {
            match Message::parse(event.line) {
                Ok(message) if matches!(message.kind, Kind::Result | Kind::Error { .. }) => lines.push(message.line),
                _ => {}
            }
        }
        match (one, lines.pop()) {
            (true, Some(line)) => answer::json(StatusCode::OK, line),
            (_, Some(last)) => {
                lines.push(last);
                answer::json(StatusCode::OK, [b"[".as_ref(), &lines.join(b",".as_ref()), b"]"].concat().into())
            }
            (_, None) => answer::empty(StatusCode::ACCEPTED),
        }
    }

    async fn notified(&self, session: &Session, message: &Message, method: &str) -> Answer {
        let shared = session.connection.serves == Serves::Sessions;
        let line = match method {
            // We have said so when we initialized the child; the others must not say it again.
            "notifications/initialized" if shared => None,
            "notifications/cancelled" => {
                let own = session.connection.cancel(message, Some(&session.client));
                // One that the bridge does not know may be known to a child from before a restart.
                own.or_else(|| (!shared).then(|| message.line.clone()))
            }
            _ => Some(message.line.clone()),
        };
        match line {
            Some(line) => sent(session, line).await,
            None => with_session(answer::empty(StatusCode::ACCEPTED), session),
        }
    }

    fn session_of(&self, head: Head<'_>, id: Option<&str>) -> Result<Session, Box<Answer>> {
        let headers = head.headers;
        let Some(name) = answer::text(headers, &answer::SESSION) else {
            let text = match self.era() {
                Some(Era::Modern) => "send `initialize` first, or `server/discover` for the newer protocol",
                _ => "send `initialize` first, then the Mcp-Session-Id of its answer with each request",
            };
            return Err(Box::new(answer::error(StatusCode::BAD_REQUEST, id, rpc::REFUSED, text)));
        };
        if let Some(version) = answer::text(headers, &answer::VERSION)
            && !LEGACY_VERSIONS.contains(&version)
        {
            let text = format!("this protocol version is not that of a session; one of {LEGACY_VERSIONS:?} is");
            return Err(Box::new(answer::error(StatusCode::BAD_REQUEST, id, rpc::REFUSED, &text)));
        }
        self.session(name, head.owner).ok_or_else(|| Box::new(not_found(id)))
    }

    fn resumable(&self) -> Resumable {
        Resumable { boot: self.context.boot.clone(), retry: self.context.config.retry }
    }
}

/// The reason why there is no session.
enum Refused {
    Start(StartError),
    /// The server's own error.
    Server(Bytes),
}

impl<E: Into<StartError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Start(error.into())
    }
}

/// Passes on a client's answer to a request of the child.
async fn answered(session: &Session, message: &Message) -> Answer {
    if session.connection.was_asked(&session.client, message) {
        return sent(session, message.line.clone()).await;
    }
    with_session(answer::empty(StatusCode::ACCEPTED), session)
}

/// The names of capabilities that a session keeps: the protocol's own are a few short words.
fn known_names(names: impl Iterator<Item = String>) -> HashSet<String> {
    names.filter(|name| name.len() <= LONGEST_NAME).take(MOST_NAMES).collect()
}

/// Passes on a message that has no answer.
async fn sent(session: &Session, line: Bytes) -> Answer {
    match session.connection.send(line).await {
        Ok(()) => with_session(answer::empty(StatusCode::ACCEPTED), session),
        Err(AskError::Gone) => not_found(None),
        Err(error @ AskError::Unheld(_)) => answer::busy(StatusCode::TOO_MANY_REQUESTS, None, &error.to_string()),
        Err(error) => answer::error(StatusCode::GATEWAY_TIMEOUT, None, rpc::TIMED_OUT, &error.to_string()),
    }
}

/// Keeps account of subscriptions, where several sessions share a child; `false` when there are too many.
fn subscribed(client: &SessionClient, message: &Message, method: &str) -> bool {
    let uri = || message.params().uri.and_then(string_of);
    match method {
        "resources/subscribe" => uri().is_none_or(|uri| client.subscribe(uri)),
        "resources/unsubscribe" => {
            uri().inspect(|uri| client.unsubscribe(uri));
            true
        }
        _ => true,
    }
}

fn not_found(id: Option<&str>) -> Answer {
    let text = "there is no such session (any more); send `initialize` again";
    answer::error(StatusCode::NOT_FOUND, id, rpc::TIMED_OUT, text)
}

fn with_session(mut answer: Answer, session: &Session) -> Answer {
    if let Ok(value) = HeaderValue::from_str(&session.client.id) {
        answer.headers_mut().insert(answer::SESSION, value);
    }
    answer
}

/// Whether the client speaks a newer protocol than this.
fn is_newer(headers: &HeaderMap) -> bool {
    answer::text(headers, &answer::VERSION).is_some_and(|version| !LEGACY_VERSIONS.contains(&version))
}
