//! A session of the gateway: it answers each message itself, passes it on to one server, or tells it to all of them.
//!
//! A client's ids and progress tokens reach the servers as they are, because each of its requests goes to one server.
//! The servers' requests to the client get ids of the session's, because two servers may choose the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Catalogues, Upstream, Upstreams,
    connection::{Connection, Lost, StreamOutcome},
    lists::{self, Catalogue, Offer},
    names,
    offers::KnownOffers,
};
use crate::{
    child_connection::next_id,
    envelope::{IdKey, Kind, LONGEST_NAME, Message, string_of},
    legacy::VERSIONS,
    modern::{NEWEST, supported},
    rpc::{self, Failure},
};

/// The most questions of servers that may wait for the client's answer.
const QUESTIONS: usize = 1_000;
/// How often servers that lists were answered without are read again, though nobody has told of a change.
const LOOK: Duration = Duration::from_secs(15);
/// The longest parameters of a client that are kept for its session, in bytes.
const LONGEST_PARAMS: usize = 4 * 1024;
/// The parameters of `initialize` that servers are told in the place of longer ones.
const NAMELESS: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"client","version":"0"}}"#;
/// How long after its end a server's standing stream is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

const INSTRUCTIONS: &str = "The tools and prompts of several MCP servers. The name of each is its server's name, two \
                            underscores, and its own name there.";

/// The session between one client (or all that have no session) and the servers.
pub(super) struct GatewaySession {
    pub(super) upstreams: Arc<dyn Upstreams>,
    pub(super) catalogues: Arc<Catalogues>,
    out: mpsc::Sender<Bytes>,
    /// The tracker of every task.
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<State>,
    known: Mutex<KnownOffers>,
}

/// A connection to a server, or why there is none, once that is known.
type Opening = watch::Receiver<Option<Result<Arc<Connection>, Failure>>>;

#[derive(Default)]
struct State {
    /// The parameters of the client's `initialize`; none in the newer era.
    client: Option<Arc<str>>,
    /// The parameters of its last `logging/setLevel`.
    log_level: Option<Arc<str>>,
    connections: BTreeMap<String, Opening>,
    /// Requests of the client that were not answered yet.
    flights: HashMap<IdKey, Flight>,
    /// The servers' requests to the client, by the session's ids.
    questions: HashMap<IdKey, Question>,
    listeners: Vec<Listener>,
}

struct Flight {
    /// The connection that the request was passed on to.
    to: Option<Arc<Connection>>,
    cancelled: CancellationToken,
}

struct Question {
    from: Arc<Connection>,
    /// The request's id at the server, as it was written.
    id: Box<str>,
}

/// A client of the newer era that wants to be told of changes.
struct Listener {
    /// The id of its request, as it was written.
    id: Box<str>,
    offers: Vec<Offer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenParams {
    notifications: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InitializeParams {
    #[serde(rename = "protocolVersion")]
    version: String,
}

// === impl GatewaySession ===

impl GatewaySession {
    pub(super) fn start(
        upstreams: Arc<dyn Upstreams>,
        catalogues: Arc<Catalogues>,
        out: mpsc::Sender<Bytes>,
    ) -> Arc<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (state, known) = Default::default();
        let gateway = Arc::new(Self { upstreams, catalogues, out, tasks, stop, state, known });
        gateway.spawn(Arc::clone(&gateway).watch());
        gateway
    }

    /// Takes one message of the client.
    pub(super) fn take(self: &Arc<Self>, line: Bytes) {
        let Ok(message) = Message::parse(line) else { return };
        match message.kind.clone() {
            Kind::Request(method) => self.requested(message, method),
            Kind::Notification(method) => self.told(&message, &method),
            Kind::Result | Kind::Error { .. } => self.answered(&message),
        }
    }

    /// Ends the sessions at the servers, and then everything.
    pub(super) async fn end(&self) {
        let connections = self.connections();
        join_all(connections.iter().map(|connection| connection.end(self).boxed())).await;
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends everything here at once.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The parameters of the client's `initialize`, in the older era.
    pub(super) fn client(&self) -> Option<Arc<str>> {
        self.lock().client.clone()
    }

    /// The parameters of the client's last `logging/setLevel`.
    pub(super) fn log_level(&self) -> Option<Arc<str>> {
        self.lock().log_level.clone()
    }

    /// The connection to a server, opened if there is none. The opening goes on when its caller goes away: the next
    /// caller finds its outcome.
    pub(super) async fn connection(self: &Arc<Self>, server: &str) -> Result<Arc<Connection>, Failure> {
        let mut opening = {
            let mut state = self.lock();
            match state.connections.get(server) {
                Some(opening) => opening.clone(),
                None => {
                    let (tell, opening) = watch::channel(None);
                    state.connections.insert(server.to_owned(), opening.clone());
                    self.spawn(Arc::clone(self).open(server.to_owned(), tell));
                    opening
                }
            }
        };
        let opened = opening.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
        opened.unwrap_or_else(|| Err(Failure::new(rpc::INTERNAL_ERROR, "the session is ending".to_owned())))
    }

    /// Opens a connection and listens to its server's standing stream for as long as the connection is used. Boxed: a
    /// message of the stream may open another connection.
    fn open(
        self: Arc<Self>,
        server: String,
        tell: watch::Sender<Option<Result<Arc<Connection>, Failure>>>,
    ) -> BoxFuture<'static, ()> {
        async move {
            let opened = Connection::open(&self, &server).await.map(Arc::new);
            if opened.is_err() {
                // A client may make up names without end.
                let this = tell.subscribe();
                self.lock().connections.retain(|_, other| !other.same_channel(&this));
            }
            tell.send_replace(Some(opened.clone()));
            if let Ok(connection) = opened {
                self.stand_by(&connection).await;
            }
        }
        .boxed()
    }

    /// Handles a message that a server sends besides answers.
    pub(super) async fn deliver(self: &Arc<Self>, from: &Arc<Connection>, message: Message) {
        match message.kind.clone() {
            Kind::Request(method) => self.asked(from, &message, &method).await,
            Kind::Notification(method) => match method.as_ref() {
                "notifications/progress" | "notifications/message" => self.say(message.line).await,
                "notifications/tools/list_changed" => self.offer_changed(from, Offer::Tools),
                "notifications/prompts/list_changed" => self.offer_changed(from, Offer::Prompts),
                "notifications/cancelled" => self.taken_back(from, &message).await,
                // There are no resources here.
                method if method.starts_with("notifications/resources/") => {}
                _ if self.client().is_some() => self.say(message.line).await,
                _ => {}
            },
            Kind::Result | Kind::Error { .. } => {}
        }
    }

    fn requested(self: &Arc<Self>, message: Message, method: Box<str>) {
        let Some(key) = message.key() else { return };
        let cancelled = self.stop.child_token();
        self.lock().flights.insert(key.clone(), Flight { to: None, cancelled: cancelled.clone() });
        let gateway = Arc::clone(self);
        self.spawn(async move {
            let answer = cancelled.run_until_cancelled(gateway.answer(&message, &method, &key)).await;
            let id = message.raw_id();
            {
                let mut state = gateway.lock();
                state.flights.remove(&key);
                state.listeners.retain(|listener| Some(listener.id.as_ref()) != id);
            }
            match answer {
                Some(Ok(line)) => gateway.say(line).await,
                Some(Err(failure)) => gateway.say(failure.line(id)).await,
                None => {}
            }
        });
    }

    async fn answer(self: &Arc<Self>, message: &Message, method: &str, key: &IdKey) -> Result<Bytes, Failure> {
        let modern = method == "server/discover" || message.params().meta().is_some_and(|meta| meta.version.is_some());
        if modern {
            supported(message)?;
        }
        let result = match method {
            "initialize" if !modern => self.initialize(message),
            "ping" if !modern => json!({}).to_string(),
            "logging/setLevel" if !modern => self.set_log_level(message).await,
            "server/discover" => discovered(),
            "subscriptions/listen" if modern => return self.listen(message).await,
            "tools/list" => lists::page(self, Offer::Tools, message, modern).await?,
            "prompts/list" => lists::page(self, Offer::Prompts, message, modern).await?,
            "tools/call" => return self.pass_on(Offer::Tools, message, method, key).await,
            "prompts/get" => return self.pass_on(Offer::Prompts, message, method, key).await,
            _ => {
                let text = format!("there is no method {method:?} here; a server's own endpoint may have it");
                return Err(Failure::new(rpc::METHOD_NOT_FOUND, text));
            }
        };
        Ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, message.raw_id().unwrap_or("null")).into())
    }

    fn initialize(&self, message: &Message) -> String {
        let params = message.params_text().unwrap_or("{}");
        let InitializeParams { version } = serde_json::from_str(params).unwrap_or_default();
        // It is kept for as long as the session, and told to each server.
        let client = if params.len() <= LONGEST_PARAMS { params } else { NAMELESS };
        self.lock().client = Some(client.into());
        let known = VERSIONS.into_iter().find(|known| *known == version);
        json!({
            "protocolVersion": known.unwrap_or("2025-11-25"), "serverInfo": info(), "instructions": INSTRUCTIONS,
            "capabilities": { "tools": { "listChanged": true }, "prompts": { "listChanged": true }, "logging": {} },
        })
        .to_string()
    }

    /// Sets the log level at the servers that are connected, and later at others when they are.
    async fn set_log_level(self: &Arc<Self>, message: &Message) -> String {
        let params = message.params_text().filter(|params| params.len() <= LONGEST_PARAMS).unwrap_or("{}");
        self.lock().log_level = Some(params.into());
        let connections = self.connections();
        join_all(connections.iter().map(|connection| connection.set_log_level(self, params).boxed())).await;
        json!({}).to_string()
    }

    /// Acknowledges a subscription, and leaves its request open until the client goes away.
    async fn listen(&self, message: &Message) -> Result<Bytes, Failure> {
        let id = message.raw_id().unwrap_or("null");
        let params = message.params_text().unwrap_or("{}");
        let ListenParams { notifications } = serde_json::from_str(params).unwrap_or_default();
        let wants = |offer: &Offer| notifications[offer.filter()] == true;
        let offers: Vec<Offer> = Offer::ALL.into_iter().filter(wants).collect();
        let granted: Value = offers.iter().map(|offer| (offer.filter().to_owned(), Value::Bool(true))).collect();
        self.lock().listeners.push(Listener { id: id.into(), offers });
        let params = format!(r#"{{"notifications":{granted},{}}}"#, subscription(id));
        self.say(rpc::notification("notifications/subscriptions/acknowledged", &params)).await;
        std::future::pending().await
    }

    /// Passes a request on to the server that its `name` names.
    async fn pass_on(
        self: &Arc<Self>,
        offer: Offer,
        message: &Message,
        method: &str,
        key: &IdKey,
    ) -> Result<Bytes, Failure> {
        let params = message.params();
        let public = params.name.and_then(string_of).unwrap_or_default();
        let nothing = || Failure::new(rpc::INVALID_PARAMS, format!("there is no {} {public:?}", offer.word()));
        let (server, within) = names::split(&public).ok_or_else(nothing)?;
        let mut connection = self.connection(server).await?;
        let name = self.original(&connection, offer, within).await;
        if !offer.is_allowed(&*self.upstreams, server, &name) {
            return Err(nothing());
        }
        let place = params.name.and_then(|name| message.place(name));
        let renamed = Message::parse(message.with([(place, names::quoted(&name))])).map_err(|_| nothing())?;
        let mut again = true;
        loop {
            if let Some(flight) = self.lock().flights.get_mut(key) {
                flight.to = Some(Arc::clone(&connection));
            }
            match connection.request(self, &renamed, method).await {
                Ok(answer) => return Ok(answer),
                // A session that is not there has not seen the request: it is sent once more, in a new one.
                Err(Lost::Session) if again => {
                    self.forget(&connection);
                    connection = self.connection(server).await?;
                    again = false;
                }
                Err(lost) => return Err(lost.into_failure(server)),
            }
        }
    }

    /// The name of a tool or prompt at its server.
    async fn original(self: &Arc<Self>, connection: &Arc<Connection>, offer: Offer, name: &str) -> String {
        if !names::may_be_changed(name) {
            return name.to_owned();
        }
        let public = names::public_name(connection.server(), name);
        let catalogue = connection.catalogue(self, offer).await;
        let original = |catalogue: &Arc<Catalogue>| {
            let changed = format!("{}__{name}", connection.server());
            catalogue
                .items
                .iter()
                .find(|item| item.public == changed || item.public == public)
                .map(|it| it.name.clone())
        };
        catalogue.ok().as_ref().and_then(original).unwrap_or_else(|| name.to_owned())
    }

    fn told(self: &Arc<Self>, message: &Message, method: &str) {
        let line = message.line.clone();
        match method {
            "notifications/cancelled" => {
                let wanted = message.params().request_id.map(|id| IdKey::of(id.get()));
                let Some(flight) = wanted.and_then(|key| self.lock().flights.remove(&key)) else { return };
                flight.cancelled.cancel();
                if let Some(connection) = flight.to {
                    self.tell(connection, line);
                }
            }
            "notifications/roots/list_changed" => {
                for connection in self.connections() {
                    self.tell(connection, line.clone());
                }
            }
            "notifications/progress" => {
                // Of a question: its token is its server's own, who alone has one that waits; others do not know it.
                let asking: Vec<_> = self.lock().questions.values().map(|it| Arc::clone(&it.from)).collect();
                for connection in asking {
                    self.tell(connection, line.clone());
                }
            }
            _ => {}
        }
    }

    /// Passes the client's answer on to the server that has asked.
    fn answered(self: &Arc<Self>, message: &Message) {
        let question = message.key().and_then(|key| self.lock().questions.remove(&key));
        if let Some(Question { from, id }) = question {
            self.tell(from, message.with([(message.id.clone(), id.to_string())]));
        }
    }

    /// Passes a server's request on to the client, or answers it where the client takes none.
    async fn asked(self: &Arc<Self>, from: &Arc<Connection>, message: &Message, method: &str) {
        let Some(id) = message.raw_id() else { return };
        if message.has_long_id() {
            let text = format!("the id of a request has at most {LONGEST_NAME} bytes");
            return self.tell(Arc::clone(from), rpc::error(None, rpc::INVALID_REQUEST, &text));
        }
        let own = next_id().to_string();
        let asks = {
            let mut state = self.lock();
            let asks = state.client.is_some() && state.questions.len() < QUESTIONS;
            if asks {
                state.questions.insert(IdKey::of(&own), Question { from: Arc::clone(from), id: id.into() });
            }
            asks
        };
        if asks {
            return self.say(message.with([(message.id.clone(), own)])).await;
        }
        let answer = if method == "ping" {
            rpc::empty_result(id)
        } else {
            rpc::error(Some(id), rpc::METHOD_NOT_FOUND, "this client takes no requests")
        };
        self.tell(Arc::clone(from), answer);
    }

    /// Tells the client that a server has given up a request to it.
    async fn taken_back(&self, from: &Arc<Connection>, message: &Message) {
        let params = message.params();
        let Some(wanted) = params.request_id else { return };
        let key = IdKey::of(wanted.get());
        let own = {
            let mut state = self.lock();
            let asked = |question: &Question| Arc::ptr_eq(&question.from, from) && IdKey::of(&question.id) == key;
            let own = state.questions.iter().find(|(_, question)| asked(question)).map(|(own, _)| own.clone());
            own.inspect(|own| {
                state.questions.remove(own);
            })
        };
        if let Some(own) = own {
            self.say(message.with([(message.place(wanted), own.written())])).await;
        }
    }

    /// Tells the client that a list is another now.
    pub(super) async fn tell_change(&self, offer: Offer) {
        let lines: Vec<Bytes> = {
            let state = self.lock();
            let listeners = state.listeners.iter().filter(|listener| listener.offers.contains(&offer));
            let tagged = listeners.map(|listener| format!("{{{}}}", subscription(&listener.id)));
            let untagged = state.client.iter().map(|_| "{}".to_owned());
            tagged.chain(untagged).map(|params| rpc::notification(offer.changed(), &params)).collect()
        };
        for line in lines {
            self.say(line).await;
        }
    }

    /// Treats all offers of a server as changed, because its messages of the meantime reached nobody.
    fn everything_changed(self: &Arc<Self>, connection: &Arc<Connection>) {
        for offer in Offer::ALL {
            self.offer_changed(connection, offer);
        }
    }

    /// Tells the client of servers that come and go.
    async fn watch(self: Arc<Self>) {
        let mut changes = self.upstreams.changes();
        let mut known = self.upstreams.list().await;
        loop {
            match timeout(LOOK, changes.changed()).await {
                Ok(Ok(())) => {}
                // Nobody tells of changes any more.
                Ok(Err(_)) => return,
                Err(_) => {
                    self.read_left_out(&known);
                    continue;
                }
            }
            let now = self.upstreams.list().await;
            self.read_left_out(&now);
            if now == known {
                continue;
            }
            let (running, before) = (running(&now), running(&known));
            self.forget_offers(&now);
            self.lock().connections.retain(|name, _| {
                let of_name = |(other, _): &&(&str, &str)| *other == name;
                running.iter().find(of_name) == before.iter().find(of_name)
            });
            if running != before {
                for offer in Offer::ALL {
                    self.tell_change(offer).await;
                }
            }
            known = now;
        }
    }

    /// Listens to a server's standing stream for as long as its connection is used.
    async fn stand_by(self: &Arc<Self>, connection: &Arc<Connection>) {
        let mut again = false;
        while self.is_current(connection) {
            let request = connection.standing();
            let response = self.upstreams.ask(connection.server(), request).await;
            match (connection.judge(&response), response.status()) {
                (StreamOutcome::Stream, _) => {
                    if std::mem::replace(&mut again, true) && connection.is_modern() {
                        self.everything_changed(connection);
                    }
                    if connection.hear(self, response).await.is_err() {
                        return;
                    }
                }
                (StreamOutcome::None, _) => return,
                (StreamOutcome::Lost, _) => {
                    self.forget(connection);
                    return self.everything_changed(connection);
                }
                (StreamOutcome::Later, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return,
                (StreamOutcome::Later, _) => {}
            }
            sleep(AGAIN).await;
        }
    }

    pub(super) fn is_current(&self, connection: &Arc<Connection>) -> bool {
        let current = self.lock().connections.get(connection.server()).and_then(open);
        current.is_some_and(|current| Arc::ptr_eq(&current, connection))
    }

    /// Forgets a connection that is of no use any more.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        self.lock().connections.retain(|_, opening| open(opening).is_none_or(|other| !Arc::ptr_eq(&other, connection)));
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock().connections.values().filter_map(open).collect()
    }

    /// Passes on a message that has no answer.
    fn tell(self: &Arc<Self>, connection: Arc<Connection>, line: Bytes) {
        let gateway = Arc::clone(self);
        self.spawn(async move { connection.tell(&gateway, line).await });
    }

    /// Writes one message to the client.
    pub(super) async fn say(&self, line: Bytes) {
        // Nobody reads any more when the bridge has let go.
        let _ = self.out.send(line).await;
    }

    /// Reads or changes the known offers of the servers.
    pub(super) fn with_known<T>(&self, look: impl FnOnce(&mut KnownOffers) -> T) -> T {
        look(&mut self.known.lock())
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The connection, if it was opened.
fn open(opening: &Opening) -> Option<Arc<Connection>> {
    opening.borrow().as_ref()?.as_ref().ok().cloned()
}

/// The servers that take requests, each with its version.
fn running(servers: &[Upstream]) -> Vec<(&str, &str)> {
    let running = servers.iter().filter(|server| server.trouble.is_none());
    running.map(|server| (server.name.as_str(), server.version.as_str())).collect()
}

/// The `serverInfo` of a gateway.
pub(super) fn info() -> Value {
    json!({ "name": "emergent", "title": "Emergent Workspaces", "version": env!("CARGO_PKG_VERSION") })
}

fn discovered() -> String {
    let mut result = json!({
        "supportedVersions": [NEWEST], "instructions": INSTRUCTIONS,
        "capabilities": { "tools": { "listChanged": true }, "prompts": { "listChanged": true } },
    });
    lists::complete(&mut result);
    result.to_string()
}

/// The `_meta` of a notification to one listener.
fn subscription(id: &str) -> String {
    format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#)
}

/// The member of this name in a raw JSON object, for members that the envelope does not know.
pub(super) fn member<'a>(raw: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(raw.get()).ok()?;
    members.get(name).copied()
}
