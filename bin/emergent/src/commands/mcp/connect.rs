//! `emergent mcp connect`: an endpoint of the server's as an MCP server on standard input and output, for clients that
//! know no other transport.
//!
//! ```text
//!   client ──line──► POST ──► JSON, or a stream of events ──line──► client
//!                    GET  ──► the server's own messages    ──line──► client     (sessions of 2025-11-25 and older)
//! ```
//!
//! Messages pass unchanged. The era of a message is read from the message itself, as the server does; in the newer era,
//! arguments that a tool's schema marks with `x-mcp-header` are repeated in headers, so the tools are listed first.

use std::{sync::Arc, time::Duration};

use emergent_api::http::problem::ProblemKind;
use emergent_mcp::{HeaderRules, header_value};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Stdout, stdin, stdout},
    sync::{Mutex, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::client::{Client, ClientError, EventReader, whole};

/// The time that answers may take after the client has gone away.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// The time to wait before the standing stream is requested again after its end.
const AGAIN: Duration = Duration::from_secs(1);
/// JSON-RPC's internal error.
const INTERNAL: i32 = -32603;
/// The error code for headers that contradict the body.
const HEADER_MISMATCH: &str = "-32020";
/// The most pages of tools that are read.
const PAGES: usize = 50;

/// The connection between a client here and an endpoint there.
struct Shim {
    client: Client,
    path: String,
    out: Mutex<Stdout>,
    session: watch::Sender<Option<Session>>,
    /// The message that the client has opened its session with; locked while another session is opened.
    opening: Mutex<Option<String>>,
    /// The arguments that are repeated in headers, once they were listed.
    rules: Mutex<Option<HeaderRules>>,
}

/// A session of 2025-11-25 or older.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    /// The session's id; `None` if the server keeps no sessions.
    id: Option<String>,
    version: String,
}

/// The fields of a message that decide how it is sent.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    name: Option<String>,
    uri: Option<String>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// Passes messages until standard input ends.
pub(super) async fn connect(client: Client, path: String) -> Result<(), ClientError> {
    let (out, session) = (Mutex::new(stdout()), watch::Sender::new(None));
    let shim = Arc::new(Shim { client, path, out, session, opening: Mutex::default(), rules: Mutex::default() });
    let standing = tokio::spawn(Arc::clone(&shim).listen());
    let mut lines = BufReader::new(stdin()).lines();
    let mut requests = JoinSet::new();
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) if line.trim().is_empty() => continue,
            Ok(Some(line)) => line,
            Ok(None) | Err(_) => break,
        };
        // What opens a session, and what is not answered, is passed in order; answers are not waited for.
        match serde_json::from_str::<Envelope<'_>>(&line) {
            Ok(Envelope { id: Some(_), method: Some(method), .. }) if method != "initialize" => {
                let shim = Arc::clone(&shim);
                requests.spawn(async move { shim.pass(line).await });
            }
            _ => shim.pass(line).await,
        }
        while requests.try_join_next().is_some() {}
    }
    let _ = timeout(LAST_ANSWERS, async { while requests.join_next().await.is_some() {} }).await;
    standing.abort();
    shim.end_session().await
}

// === impl Shim ===

impl Shim {
    /// Sends one message and writes the answer. Every failure is reported to the client as the protocol's error.
    async fn pass(&self, line: String) {
        let envelope = serde_json::from_str::<Envelope<'_>>(&line).ok();
        let id = envelope.as_ref().and_then(|envelope| envelope.id).map(|id| id.get().to_owned());
        let is_request = envelope.as_ref().is_none_or(|envelope| envelope.method.is_some() && id.is_some());
        let opens = envelope.as_ref().is_some_and(|envelope| envelope.method.as_deref() == Some("initialize"));
        let passed = async {
            if opens {
                self.session.send_replace(None);
                *self.opening.lock().await = Some(line.clone());
            }
            let session = self.session.borrow().clone();
            let mut response = self.send(&line, envelope.as_ref()).await?;
            if let Some(gone) = session.filter(|session| is_request && !opens && session.is_gone(&response)) {
                self.open_again(&gone).await?;
                response = self.send(&line, envelope.as_ref()).await?;
            }
            self.answer(response, opens).await
        };
        if let Err(error) = passed.await {
            tracing::debug!(%error, "a message was not answered");
            if is_request {
                let id = id.and_then(|id| serde_json::from_str::<Value>(&id).ok()).unwrap_or_default();
                let error = json!({ "code": INTERNAL, "message": advised(&error) });
                self.write(&json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()).await;
            }
        }
    }

    async fn send(&self, line: &str, envelope: Option<&Envelope<'_>>) -> Result<Response, ClientError> {
        let request = self.post(envelope)?.body(line.to_owned());
        let repeated = self.repeated(envelope).await?;
        let request = repeated.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        self.client.send_any(request).await
    }

    /// Opens a new session in place of one that is gone, with the client's own opening message. Of several calls that
    /// find it gone, only one does so.
    async fn open_again(&self, gone: &Session) -> Result<(), ClientError> {
        let opening = self.opening.lock().await;
        if self.session.borrow().as_ref() != Some(gone) {
            return Ok(());
        }
        let Some(line) = opening.as_ref() else { return Ok(()) };
        tracing::info!("the session is gone; another one is opened");
        let post = |line: &str| {
            let request = self.client.request(Method::POST, &self.path)?.body(line.to_owned());
            let request = request.header(header::CONTENT_TYPE, "application/json");
            Ok::<_, ClientError>(request.header(header::ACCEPT, "application/json, text/event-stream"))
        };
        let response = self.client.send_any(post(line)?).await?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(ClientError::of_answer(status, text(response).await?.as_bytes()));
        }
        let id = session_id(&response);
        let said = last_message(response).await?;
        let session = Session::of(id, &said).ok_or_else(|| ClientError::NotOurs { status: 200 })?;
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.client.send_any(session.on(post(initialized)?)).await?;
        self.session.send_replace(Some(session));
        Ok(())
    }

    fn post(&self, envelope: Option<&Envelope<'_>>) -> Result<RequestBuilder, ClientError> {
        let mut request = self.client.request(Method::POST, &self.path)?;
        request = request.header(header::CONTENT_TYPE, "application/json");
        request = request.header(header::ACCEPT, "application/json, text/event-stream");
        if let Some(Envelope { method: Some(method), params, .. }) = envelope
            && let Some(version) = params.version()
        {
            request = request.header("mcp-protocol-version", &version).header("mcp-method", method);
            let named = match method.as_str() {
                "tools/call" | "prompts/get" => params.name.as_deref(),
                "resources/read" => params.uri.as_deref(),
                _ => None,
            };
            return Ok(match named {
                Some(name) => request.header("mcp-name", header_value(name)),
                None => request,
            });
        }
        Ok(match &*self.session.borrow() {
            Some(session) => session.on(request),
            None => request,
        })
    }

    /// Returns the headers that repeat arguments of a call in the newer era.
    async fn repeated(&self, envelope: Option<&Envelope<'_>>) -> Result<Vec<(HeaderName, HeaderValue)>, ClientError> {
        let Some(Envelope { method: Some(method), params, .. }) = envelope else { return Ok(Vec::new()) };
        let (Some(name), Some(meta)) = (&params.name, params.meta.filter(|_| params.version().is_some())) else {
            return Ok(Vec::new());
        };
        if method != "tools/call" {
            return Ok(Vec::new());
        }
        let mut rules = self.rules.lock().await;
        if rules.is_none() {
            *rules = Some(self.list(meta).await?);
        }
        Ok(rules.as_ref().map(|rules| rules.headers(name, params.arguments)).unwrap_or_default())
    }

    /// Lists the arguments to repeat, with the client's metadata. A server that does not list its tools has none.
    async fn list(&self, meta: &RawValue) -> Result<HeaderRules, ClientError> {
        let mut rules = HeaderRules::default();
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let params = format!(r#"{{{cursor}"_meta":{meta}}}"#);
            let line = format!(r#"{{"jsonrpc":"2.0","id":"emergent-tools","method":"tools/list","params":{params}}}"#);
            let envelope = serde_json::from_str::<Envelope<'_>>(&line).ok();
            let response = self.client.send_any(self.post(envelope.as_ref())?.body(line.clone())).await?;
            let last = last_message(response).await?;
            let Ok(Listed { result: Some(result) }) = serde_json::from_str::<Listed<'_>>(&last) else { break };
            match rules.add(result) {
                Some(next) => cursor = format!(r#""cursor":{next},"#),
                None => break,
            }
        }
        Ok(rules)
    }

    /// Forgets the listed arguments when a message says that they have changed.
    async fn notice(&self, message: &str) {
        if message.contains(HEADER_MISMATCH) || message.contains("notifications/tools/list_changed") {
            *self.rules.lock().await = None;
        }
    }

    async fn answer(&self, response: Response, opens: bool) -> Result<(), ClientError> {
        let mut opened = opens.then(|| session_id(&response));
        let mut write = async |message: &str| {
            if let Some(session) = opened.take().and_then(|id| Session::of(id, message)) {
                self.session.send_replace(Some(session));
            }
            self.write(message).await;
        };
        if is_stream(&response) {
            let mut events = EventReader::new(response);
            while let Some(event) = events.next().await.map_err(ClientError::Events)? {
                write(&event.data).await;
            }
            return Ok(());
        }
        let status = response.status();
        let body = text(response).await?;
        let message = serde_json::from_str::<Value>(&body).ok().filter(|message| message["jsonrpc"] == "2.0");
        match message {
            Some(_) => write(&body).await,
            None if status.is_success() => {}
            None => return Err(ClientError::of_answer(status.as_u16(), body.as_bytes())),
        }
        Ok(())
    }

    /// Passes on the messages that a session's server sends unasked, for as long as there is a session.
    async fn listen(self: Arc<Self>) {
        let mut sessions = self.session.subscribe();
        let (mut last, mut before) = (None::<String>, None::<Session>);
        loop {
            let Ok(session) = sessions.wait_for(Option::is_some).await.map(|session| session.clone()) else { return };
            let Some(session) = session else { continue };
            if before.as_ref() != Some(&session) {
                (last, before) = (None, Some(session.clone()));
            }
            let Ok(request) = self.client.request(Method::GET, &self.path) else { return };
            let mut request = session.on(request).header(header::ACCEPT, "text/event-stream");
            if let Some(id) = &last {
                request = request.header("last-event-id", id);
            }
            match self.client.send_any(request).await {
                Ok(response) if is_stream(&response) => {
                    let mut events = EventReader::new(response);
                    while let Ok(Some(event)) = events.next().await {
                        last = Some(event.id).filter(|id| !id.is_empty()).or(last);
                        self.write(&event.data).await;
                    }
                }
                // There is none to be had.
                Ok(response) if response.status() == StatusCode::METHOD_NOT_ALLOWED => return,
                // The next request opens another session.
                Ok(response) if session.is_gone(&response) => {
                    if sessions.changed().await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => {}
            }
            sleep(AGAIN).await;
        }
    }

    async fn end_session(&self) -> Result<(), ClientError> {
        let session = self.session.borrow().clone();
        if let Some(session) = session.filter(|session| session.id.is_some()) {
            self.client.send_any(session.on(self.client.request(Method::DELETE, &self.path)?)).await?;
        }
        Ok(())
    }

    /// Writes a message as one line. A client that no longer reads ends this program by closing its input.
    async fn write(&self, message: &str) {
        self.notice(message).await;
        // Between the tokens of JSON a line end is as good as a blank, and inside of them there is none.
        let line = message.trim().replace(['\r', '\n'], " ") + "\n";
        let mut out = self.out.lock().await;
        let written = async {
            out.write_all(line.as_bytes()).await?;
            out.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "a message could not be written");
        }
    }
}

// === impl Params ===

impl Params<'_> {
    /// Returns the version that the message names, in the newer era.
    fn version(&self) -> Option<String> {
        serde_json::from_str::<Meta>(self.meta?.get()).ok()?.version
    }
}

// === impl Session ===

impl Session {
    /// Returns the session that an answer to `initialize` begins.
    fn of(id: Option<String>, said: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(said).ok()?;
        let version = said["result"]["protocolVersion"].as_str()?.to_owned();
        Some(Self { id, version })
    }

    /// Whether an answer says that the server does not know the session any more.
    fn is_gone(&self, response: &Response) -> bool {
        self.id.is_some() && response.status() == StatusCode::NOT_FOUND
    }

    fn on(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header("mcp-protocol-version", &self.version);
        match &self.id {
            Some(id) => request.header("mcp-session-id", id),
            None => request,
        }
    }
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    response.status().is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn session_id(response: &Response) -> Option<String> {
    response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned)
}

/// Returns the body of an answer; nothing of one that breaks off.
async fn text(response: Response) -> Result<String, ClientError> {
    match whole(response).await {
        Ok(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
        Err(error) if error.is_of_connection() => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Returns the answer, or the last message of a stream, which is the answer.
async fn last_message(response: Response) -> Result<String, ClientError> {
    if !is_stream(&response) {
        return text(response).await;
    }
    let (mut events, mut last) = (EventReader::new(response), String::new());
    while let Some(event) = events.next().await.map_err(ClientError::Events)? {
        last = event.data;
    }
    Ok(last)
}

/// Formats an error, with the command that helps.
fn advised(error: &ClientError) -> String {
    let advice = [
        (ProblemKind::McpServerNotFound, "`emergent mcp ls` lists your project's servers"),
        (ProblemKind::McpServerNotRunning, "`emergent mcp logs` says why, and `emergent mcp restart` starts it again"),
        (ProblemKind::McpServerNotReady, "`emergent mcp ls` says when it is tried again"),
        (ProblemKind::WorkspaceNotFound, "`emergent workspace ls` lists your project's workspaces"),
        (ProblemKind::Unauthorized, "set EMERGENT_TOKEN to a token of `emergent token create --scope mcp:use`"),
        (ProblemKind::MissingScope, "`emergent token create --scope mcp:use` makes one that may"),
    ];
    match advice.into_iter().find(|(kind, _)| error.is_problem(*kind)) {
        Some((_, advice)) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}
