//! The connection to one server: a session in the older era, or none in the newer one.
//!
//! A client of the older era has a session of its own at each server, begun with the parameters of its `initialize`.
//! Requests of the newer era go as they are to servers that know that era; each other server has one session, which we
//! begin and in which the server can ask for nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use super::{
    UpstreamBody, Upstreams,
    catalogue::{Catalogue, Offer},
    messages::{Came, Messages},
};
use crate::{
    answer,
    child_connection::next_id,
    config::LINE_LIMIT,
    elements::member,
    envelope::{Kind, Message, string_of},
    handshake::{Initialized, client_info, meta_member, result_of},
    headers::{PAGES, header_value},
    modern::is_modern_error,
    rpc::{self, Failure},
    versions::{NEWEST, NEWEST_LEGACY},
};

/// The time for which a server's list is believed where it decides about headers and changed names.
const BELIEVED: Duration = Duration::from_secs(60);
const PROBLEM: &str = "application/problem+json";
const BOTH: &str = "application/json, text/event-stream";

/// The client's session at the gateway, as far as its connections to servers need it.
pub(super) trait Client: Send + Sync {
    /// The parameters of the client's `initialize`, in the older era.
    fn initialize_params(&self) -> Option<Arc<str>>;

    /// The parameters of the client's last `logging/setLevel`.
    fn log_level(&self) -> Option<Arc<str>>;

    /// Takes a message that a server sends besides answers.
    fn deliver<'a>(&'a self, from: &'a Arc<Connection>, message: Message) -> BoxFuture<'a, ()>;

    /// Forgets a connection that is of no use any more.
    fn forget(&self, connection: &Arc<Connection>);
}

/// One server, as one session of the gateway reaches it.
pub(super) struct Connection {
    upstreams: Arc<dyn Upstreams>,
    server: String,
    speaks: Speaks,
    /// The kinds of offers that the server declares, of those that a gateway has.
    offers: Vec<Offer>,
    catalogues: Mutex<[Option<Arc<Catalogue>>; 2]>,
}

enum Speaks {
    /// A session, with its id where the server keeps one.
    Legacy {
        session: Option<HeaderValue>,
        version: String,
    },
    Modern {
        version: String,
    },
}

/// The reason for which a request has no answer.
pub(super) enum Lost {
    /// There is no such session any more: the request was not looked at.
    Session,
    /// The server cannot be asked, or its answer did not come.
    Failed(Failure),
}

/// The outcome of asking for a standing stream.
pub(super) enum StreamOutcome {
    /// The stream is here.
    Stream,
    /// The server has no such stream.
    None,
    /// There is no such session any more.
    Lost,
    /// The stream may be had another time.
    Later,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hello {
    #[serde(rename = "supportedVersions")]
    versions: Vec<String>,
    capabilities: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: String,
}

// === impl Connection ===

impl Connection {
    /// Begins a session, or finds out that none is needed.
    pub(super) async fn open(
        upstreams: &Arc<dyn Upstreams>,
        server: &str,
        client: &dyn Client,
    ) -> Result<Self, Failure> {
        if let Some(params) = client.initialize_params() {
            return Self::initialize(upstreams, server, client, &params).await;
        }
        let params = format!("{{{}}}", meta_member(NEWEST));
        let line = rpc::request(&own_id(), "server/discover", &params);
        let request = modern_request(NEWEST, "server/discover", None).body(line);
        let response = upstreams.ask(server, request.map_err(broken)?).await;
        if is_problem(&response) {
            return Err(problem(&**upstreams, server, response).await);
        }
        let answer = last_answer(&**upstreams, response).await;
        let hello = answer.as_ref().and_then(|answer| result_of(&answer.line).ok());
        if let Some(hello) = hello.and_then(|result| serde_json::from_str::<Hello>(result.get()).ok())
            && hello.versions.iter().any(|version| version == NEWEST)
        {
            let offers = offered(&hello.capabilities);
            return Ok(Self::new(upstreams, server, Speaks::Modern { version: NEWEST.to_owned() }, offers));
        }
        if let Some(Message { kind: Kind::Error { code }, .. }) = &answer
            && is_modern_error(*code)
        {
            let text = format!("the server {server:?} speaks no version of the protocol that is spoken here");
            return Err(Failure::new(rpc::INTERNAL_ERROR, text));
        }
        let info = client_info();
        let params = format!(r#"{{"protocolVersion":"{NEWEST_LEGACY}","capabilities":{{}},"clientInfo":{info}}}"#);
        Self::initialize(upstreams, server, client, &params).await
    }

    async fn initialize(
        upstreams: &Arc<dyn Upstreams>,
        server: &str,
        client: &dyn Client,
        params: &str,
    ) -> Result<Self, Failure> {
        let line = rpc::request(&own_id(), "initialize", params);
        let request = post().body(line).map_err(broken)?;
        let response = upstreams.ask(server, request).await;
        if is_problem(&response) {
            return Err(problem(&**upstreams, server, response).await);
        }
        let session = response.headers().get(&answer::SESSION).cloned();
        let said = |reason: String| {
            Failure::new(rpc::INTERNAL_ERROR, format!("the server {server:?} began no session: {reason}"))
        };
        let answer = last_answer(&**upstreams, response).await.ok_or_else(|| said("it did not answer".to_owned()))?;
        let Initialized { version, result } = Initialized::read(&answer).map_err(|error| said(error.to_string()))?;
        let hello: Hello = serde_json::from_str(result.get()).unwrap_or_default();
        let connection =
            Self::new(upstreams, server, Speaks::Legacy { session, version }, offered(&hello.capabilities));
        connection.tell(rpc::notification("notifications/initialized", "{}")).await;
        if let Some(level) = client.log_level() {
            connection.set_log_level(&level).await;
        }
        Ok(connection)
    }

    fn new(upstreams: &Arc<dyn Upstreams>, server: &str, speaks: Speaks, offers: Vec<Offer>) -> Self {
        Self {
            upstreams: Arc::clone(upstreams),
            server: server.to_owned(),
            speaks,
            offers,
            catalogues: Mutex::default(),
        }
    }

    /// The server's name.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn is_modern(&self) -> bool {
        matches!(self.speaks, Speaks::Modern { .. })
    }

    /// Sends a request and delivers the messages that come before its answer. Dropping the future drops the response,
    /// which cancels a request of the newer era.
    pub(super) async fn request(
        self: &Arc<Self>,
        client: &dyn Client,
        message: &Message,
        method: &str,
    ) -> Result<Bytes, Lost> {
        let translated = client.initialize_params().is_none() && !self.is_modern();
        let older = translated.then(|| without_newer_meta(message)).flatten();
        let message = older.as_ref().unwrap_or(message);
        let mut answer = self.request_once(client, message, method).await?;
        if answer.kind == (Kind::Error { code: rpc::HEADER_MISMATCH }) {
            // Its tools have changed without a word.
            self.forget(Offer::Tools);
            answer = self.request_once(client, message, method).await?;
        }
        if translated && answer.kind == Kind::Result {
            return Ok(completed(&answer));
        }
        Ok(answer.line)
    }

    async fn request_once(
        self: &Arc<Self>,
        client: &dyn Client,
        message: &Message,
        method: &str,
    ) -> Result<Message, Lost> {
        let params = message.params();
        let name = params.name.and_then(string_of);
        let mut request = self.post(method, name.as_deref());
        if self.is_modern() && method == "tools/call" {
            // One that does not tell its tools checks what it needs itself.
            let catalogue = self.catalogue(client, Offer::Tools).await.ok();
            let repeated = catalogue.map(|it| it.rules.headers(name.as_deref().unwrap_or_default(), params.arguments));
            for (name, value) in repeated.unwrap_or_default() {
                request = request.header(name, value);
            }
        }
        let request = request.body(message.line.clone()).map_err(|error| Lost::Failed(broken(error)))?;
        let response = self.upstreams.ask(&self.server, request).await;
        if is_problem(&response) {
            return Err(Lost::Failed(problem(&*self.upstreams, &self.server, response).await));
        }
        if response.status() == StatusCode::NOT_FOUND && !self.is_modern() {
            return Err(Lost::Session);
        }
        let mut messages = Messages::of(response, self.upstreams.account());
        while let Some(came) = messages.next().await {
            let what = match came {
                Came::Message(bytes) => Ok(bytes),
                Came::TooLong => Err(format!("more than {LINE_LIMIT} bytes, which is the limit")),
                Came::Unheld(exhausted) => Err(format!("more than can be held: {exhausted}")),
            };
            let bytes = what.map_err(|what| {
                let text = format!("the server {:?} answered {what}", self.server);
                Lost::Failed(Failure::new(rpc::INTERNAL_ERROR, text))
            })?;
            let Ok(came) = Message::parse(bytes) else { continue };
            match came.kind {
                Kind::Result | Kind::Error { .. } if came.key() == message.key() => return Ok(came),
                // What the endpoint could not read has no id.
                Kind::Error { code } if came.id.is_none() => {
                    let text = String::from_utf8_lossy(&came.line).into_owned();
                    return Err(Lost::Failed(Failure::new(code, format!("{:?} refuses it: {text}", self.server))));
                }
                _ => client.deliver(self, came).await,
            }
        }
        let text = format!("the server {:?} did not answer: the connection to its endpoint ended", self.server);
        Err(Lost::Failed(Failure::new(rpc::INTERNAL_ERROR, text)))
    }

    /// Sends a message without reading an answer. Servers of the newer era are told nothing.
    pub(super) async fn tell(&self, line: Bytes) {
        let method = match Message::parse(line.clone()).map(|message| message.kind) {
            Ok(Kind::Notification(method)) => method,
            _ => Box::default(),
        };
        // In the newer era a request is cancelled by its response; servers are told nothing else.
        if self.is_modern() {
            return;
        }
        let Ok(request) = self.post(&method, None).body(line) else { return };
        let response = self.upstreams.ask(&self.server, request).await;
        if !response.status().is_success() {
            tracing::debug!(server = self.server, status = %response.status(), %method, "a server was not told");
        }
    }

    /// Sets how much a session logs.
    pub(super) async fn set_log_level(&self, params: &str) {
        self.tell(rpc::request(&own_id(), "logging/setLevel", params)).await;
    }

    /// The server's offers of one kind, read again after a change and after [`BELIEVED`]. Boxed: a list is a request,
    /// too, and a request may need to know what is listed.
    pub(super) fn catalogue<'a>(
        self: &'a Arc<Self>,
        client: &'a dyn Client,
        offer: Offer,
    ) -> BoxFuture<'a, Result<Arc<Catalogue>, Failure>> {
        self.read_catalogue(client, offer).boxed()
    }

    async fn read_catalogue(self: &Arc<Self>, client: &dyn Client, offer: Offer) -> Result<Arc<Catalogue>, Failure> {
        let known = self.lock()[index(offer)].clone();
        if let Some(known) = known.filter(|known| known.read.elapsed() < BELIEVED) {
            return Ok(known);
        }
        let mut catalogue = Catalogue::new();
        let mut cursor = None;
        for _ in 0..if self.offers.contains(&offer) { PAGES } else { 0 } {
            let meta = if self.is_modern() { meta_member(NEWEST) } else { String::new() };
            let at = cursor.map(|cursor| format!(r#""cursor":{cursor}"#)).unwrap_or_default();
            let comma = if meta.is_empty() || at.is_empty() { "" } else { "," };
            let line = rpc::request(&own_id(), offer.list(), &format!("{{{at}{comma}{meta}}}"));
            let message = Message::parse(line).map_err(|_| Failure::new(rpc::INTERNAL_ERROR, "a bad cursor".into()))?;
            let answer = self.request_once(client, &message, offer.list()).await;
            let answer = answer.map_err(|lost| {
                if matches!(lost, Lost::Session) {
                    client.forget(self);
                }
                lost.into_failure(&self.server)
            })?;
            let result: &RawValue =
                result_of(&answer.line).map_err(|reason| Failure::new(rpc::INTERNAL_ERROR, reason))?;
            cursor = catalogue.add(&self.server, offer, result);
            if cursor.is_none() {
                break;
            }
        }
        catalogue.read = Instant::now();
        let catalogue = Arc::new(catalogue);
        self.lock()[index(offer)] = Some(Arc::clone(&catalogue));
        Ok(catalogue)
    }

    /// Forgets the server's list.
    pub(super) fn forget(&self, offer: Offer) {
        self.lock()[index(offer)] = None;
    }

    /// The request for the standing stream, on which the server speaks unasked.
    pub(super) fn standing(&self) -> Request<Bytes> {
        let request = match &self.speaks {
            Speaks::Legacy { .. } => self.in_session(Request::builder().method(Method::GET)).body(Bytes::new()),
            Speaks::Modern { version } => {
                let wanted = r#""notifications":{"toolsListChanged":true,"promptsListChanged":true}"#;
                let params = format!("{{{wanted},{}}}", meta_member(version));
                let line = rpc::request(&own_id(), "subscriptions/listen", &params);
                modern_request(version, "subscriptions/listen", None).body(line)
            }
        };
        // Made of what was sent before: it can be sent again.
        request.unwrap_or_default()
    }

    /// Judges the answer to the request for the standing stream.
    pub(super) fn judge(&self, response: &Response<UpstreamBody>) -> StreamOutcome {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match response.status() {
            status if status.is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream")) => {
                StreamOutcome::Stream
            }
            _ if is_problem(response) => StreamOutcome::Later,
            StatusCode::NOT_FOUND if !self.is_modern() => StreamOutcome::Lost,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => StreamOutcome::Later,
            _ => StreamOutcome::None,
        }
    }

    /// Delivers the messages of the standing stream; an error where the server says that there is no such stream.
    pub(super) async fn hear(
        self: &Arc<Self>,
        client: &dyn Client,
        response: Response<UpstreamBody>,
    ) -> Result<(), ()> {
        let mut messages = Messages::of(response, self.upstreams.account());
        while let Some(came) = messages.next().await {
            let Came::Message(bytes) = came else { continue };
            match Message::parse(bytes) {
                Ok(Message { kind: Kind::Error { code: rpc::METHOD_NOT_FOUND }, .. }) => return Err(()),
                Ok(message) => client.deliver(self, message).await,
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Ends the session, if there is one.
    pub(super) async fn end(&self) {
        if let Speaks::Legacy { session: Some(_), .. } = &self.speaks
            && let Ok(request) = self.in_session(Request::builder().method(Method::DELETE)).body(Bytes::new())
        {
            self.upstreams.ask(&self.server, request).await;
        }
    }

    fn post(&self, method: &str, name: Option<&str>) -> http::request::Builder {
        match &self.speaks {
            Speaks::Legacy { .. } => self.in_session(post()),
            Speaks::Modern { version } => modern_request(version, method, name),
        }
    }

    fn in_session(&self, request: http::request::Builder) -> http::request::Builder {
        let Speaks::Legacy { session, version } = &self.speaks else { return request };
        let request = request.header(header::ACCEPT, BOTH).header(answer::VERSION, version);
        match session {
            Some(session) => request.header(answer::SESSION, session),
            None => request,
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, [Option<Arc<Catalogue>>; 2]> {
        self.catalogues.lock()
    }
}

// === impl Lost ===

impl Lost {
    /// The failure as an answer to the client.
    pub(super) fn into_failure(self, server: &str) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Session => {
                Failure::new(rpc::INTERNAL_ERROR, format!("the server {server:?} ends its sessions at once"))
            }
        }
    }
}

fn index(offer: Offer) -> usize {
    match offer {
        Offer::Tools => 0,
        Offer::Prompts => 1,
    }
}

fn own_id() -> String {
    format!("\"emergent-{}\"", next_id())
}

fn post() -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, BOTH)
}

fn modern_request(version: &str, method: &str, name: Option<&str>) -> http::request::Builder {
    let request = post().header(answer::VERSION, version).header("mcp-method", method);
    match name {
        Some(name) => request.header("mcp-name", header_value(name)),
        None => request,
    }
}

fn broken(error: http::Error) -> Failure {
    Failure::new(rpc::INTERNAL_ERROR, format!("the request could not be made: {error}"))
}

fn offered(capabilities: &Value) -> Vec<Offer> {
    Offer::ALL.into_iter().filter(|offer| capabilities[offer.key()].is_object()).collect()
}

fn is_problem(response: &Response<UpstreamBody>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(PROBLEM.as_bytes()))
}

/// Turns a problem (RFC 9457) into the failure of a request.
async fn problem(upstreams: &dyn Upstreams, server: &str, response: Response<UpstreamBody>) -> Failure {
    let status = response.status();
    let body = match Messages::of(response, upstreams.account()).next().await {
        Some(Came::Message(body)) => body,
        Some(Came::TooLong | Came::Unheld(_)) | None => Bytes::new(),
    };
    let Problem { detail } = serde_json::from_slice(&body).unwrap_or_default();
    let why = if detail.is_empty() { status.to_string() } else { detail };
    Failure::new(rpc::INTERNAL_ERROR, format!("the server {server:?} cannot be asked: {why}"))
}

/// The answer in a response to a request of ours.
async fn last_answer(upstreams: &dyn Upstreams, response: Response<UpstreamBody>) -> Option<Message> {
    let mut messages = Messages::of(response, upstreams.account());
    while let Some(came) = messages.next().await {
        let Came::Message(bytes) = came else { continue };
        match Message::parse(bytes) {
            Ok(message) if matches!(message.kind, Kind::Result | Kind::Error { .. }) => return Some(message),
            _ => {}
        }
    }
    None
}

/// A request of the newer era in the form that servers of the older one expect; `None` where it says nothing of its
/// era.
fn without_newer_meta(message: &Message) -> Option<Message> {
    let meta = message.params().meta?;
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(meta.get()).ok()?;
    members.retain(|name, _| !name.starts_with("io.modelcontextprotocol/"));
    let members = serde_json::to_string(&members).ok()?;
    Message::parse(message.with([(message.place(meta), members)])).ok()
}

/// A result of the older era in the form that clients of the newer one expect.
fn completed(answer: &Message) -> Bytes {
    let complete = || {
        let result = result_of(&answer.line).ok()?;
        let rest = result.get().strip_prefix('{')?;
        if member(result, "resultType").is_some() {
            return None;
        }
        let place = answer.place(result)?;
        let comma = if rest.trim_ascii_start().starts_with('}') { "" } else { "," };
        Some(answer.with([(Some(place), format!(r#"{{"resultType":"complete"{comma}{rest}"#))]))
    };
    complete().unwrap_or_else(|| answer.line.clone())
}
