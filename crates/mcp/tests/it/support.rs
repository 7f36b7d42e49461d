//! A bridge over the fixture, and clients that speak to it in single requests.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emergent_mcp::{Bridge, BridgeBody, BridgeConfig, Launcher, ProcessLauncher};
use http::{Request, Response, StatusCode, request::Builder};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// No wait of a test is longer.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const MODERN: &str = "2026-07-28";

/// The fixture with these flags.
pub(crate) fn fixture(flags: &[&str]) -> ProcessLauncher {
    ProcessLauncher::new([env!("CARGO_BIN_EXE_emergent-mcp-fixture")].iter().chain(flags))
}

/// A bridge over the fixture.
pub(crate) async fn bridge(config: BridgeConfig) -> Arc<Bridge> {
    bridge_over(fixture(&[]), config).await
}

pub(crate) async fn bridge_over(launcher: impl Launcher, config: BridgeConfig) -> Arc<Bridge> {
    Arc::new(Bridge::start(Arc::new(launcher), config).await.expect("a bridge"))
}

/// Settings that make a test wait for little.
pub(crate) fn quick() -> BridgeConfig {
    let json_within = Duration::from_secs(2);
    BridgeConfig { grace: Duration::from_secs(1), call_timeout: LONG, json_within, ..BridgeConfig::default() }
}

/// A client of the older era.
pub(crate) struct Client {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) session: String,
    next: AtomicU64,
}

/// A stream of events.
pub(crate) struct Events {
    body: BridgeBody,
    text: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

// === impl Client ===

impl Client {
    /// Opens a session that can do everything.
    pub(crate) async fn connect(bridge: &Arc<Bridge>) -> Self {
        Self::connect_as(bridge, "test", "2025-11-25").await
    }

    pub(crate) async fn connect_as(bridge: &Arc<Bridge>, name: &str, version: &str) -> Self {
        Self::connect_to(bridge, name, version, "emergent-mcp-fixture").await
    }

    pub(crate) async fn connect_to(bridge: &Arc<Bridge>, name: &str, version: &str, server: &str) -> Self {
        let answer = post(bridge, &[], &initialize(name, version)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let session = answer.headers()["mcp-session-id"].to_str().expect("a name").to_owned();
        let result = whole(answer).await;
        assert_eq!(result["result"]["serverInfo"]["name"], server, "{result}");
        let client = Self { bridge: Arc::clone(bridge), session, next: AtomicU64::new(1) };
        let told = client.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        assert_eq!(told.status(), StatusCode::ACCEPTED);
        client
    }

    /// The client of a session that is there already.
    pub(crate) fn resumed(bridge: &Arc<Bridge>, session: &str) -> Self {
        Self { bridge: Arc::clone(bridge), session: session.to_owned(), next: AtomicU64::new(1000) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn post(&self, message: &Value) -> Response<BridgeBody> {
        post(&self.bridge, &[("mcp-session-id", &self.session)], &message.to_string()).await
    }

    /// Starts a tool; the answer may stream.
    pub(crate) async fn start(&self, id: &Value, tool: &str, arguments: &Value) -> Response<BridgeBody> {
        self.post(&tool_call(id, tool, arguments)).await
    }

    /// Calls a tool and gives back the whole response message.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let id = json!(self.id());
        let answer = self.start(&id, tool, &arguments).await;
        let message = whole(answer).await;
        assert_eq!(message["id"], id, "{message}");
        message
    }

    /// Calls a tool and gives back its text.
    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> String {
        let message = self.call(tool, arguments).await;
        message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    /// Opens the standing stream, or resumes one.
    pub(crate) async fn events(&self, last: Option<&str>) -> Events {
        let mut request = Request::get("http://localhost/mcp").header("mcp-session-id", &self.session);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = self.bridge.handle(request.body(Full::<Bytes>::default()).expect("a request")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        Events::of(answer)
    }

    pub(crate) async fn delete(&self) -> StatusCode {
        let request = Request::delete("http://localhost/mcp").header("mcp-session-id", &self.session);
        self.bridge.handle(request.body(Full::<Bytes>::default()).expect("a request")).await.status()
    }
}

// === impl Events ===

impl Events {
    pub(crate) fn of(answer: Response<BridgeBody>) -> Self {
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        timeout(LONG, self.read()).await.expect("an event in time")
    }

    /// The next message, past what primes the stream.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            let event = self.next().await?;
            if !event.data.is_empty() {
                return Some(serde_json::from_str(&event.data).expect("JSON"));
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let Some(data) = field("data: ") {
                    return Some(Event { id: field("id: "), data });
                }
            }
            let frame = self.body.frame().await?;
            let frame = frame.unwrap_or_else(|never: Infallible| match never {});
            self.text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8"));
        }
    }
}

pub(crate) fn initialize(name: &str, version: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
        "protocolVersion": version,
        "capabilities": { "sampling": {}, "elicitation": {}, "roots": { "listChanged": true } },
        "clientInfo": { "name": name, "version": "1" },
    } })
    .to_string()
}

pub(crate) fn tool_call(id: &Value, tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments, "_meta": { "progressToken": id } } })
}

/// A POST as clients make it.
pub(crate) fn request(headers: &[(&str, &str)]) -> Builder {
    let request = Request::post("http://localhost/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

pub(crate) async fn post(bridge: &Bridge, headers: &[(&str, &str)], body: &str) -> Response<BridgeBody> {
    let request = request(headers).body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
    timeout(LONG, bridge.handle(request)).await.expect("an answer in time")
}

/// A request of the newer era, with the headers that it needs.
pub(crate) async fn modern(bridge: &Bridge, id: &Value, method: &str, params: Value) -> Response<BridgeBody> {
    let mut params = params;
    let meta = params.as_object_mut().expect("an object").entry("_meta").or_insert_with(|| json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let named = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", method)];
    if !named.is_empty() {
        headers.push(("mcp-name", &named));
    }
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    post(bridge, &headers, &body.to_string()).await
}

pub(crate) async fn modern_tool(bridge: &Bridge, id: &Value, tool: &str, arguments: Value) -> Response<BridgeBody> {
    let meta = json!({ "progressToken": id });
    modern(bridge, id, "tools/call", json!({ "name": tool, "arguments": arguments, "_meta": meta })).await
}

/// The body as text.
pub(crate) async fn text(answer: Response<BridgeBody>) -> String {
    let body = timeout(LONG, answer.into_body().collect()).await.expect("a body in time");
    let bytes = body.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The response message of an answer, whether it is JSON or the last of a stream.
pub(crate) async fn whole(answer: Response<BridgeBody>) -> Value {
    if answer.headers()["content-type"] == "application/json" {
        return serde_json::from_str(&text(answer).await).expect("JSON");
    }
    let mut events = Events::of(answer);
    let mut last = Value::Null;
    while let Some(message) = events.message().await {
        last = message;
    }
    last
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let end = Instant::now() + LONG;
    while !so().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The processes of a bridge's children.
pub(crate) fn pids(bridge: &Bridge) -> Vec<u32> {
    let pid = |id: &str| id.split('-').next().and_then(|pid| pid.parse().ok());
    bridge.status().children.iter().filter_map(|(id, _)| pid(id.as_str())).collect()
}

/// Waits until none of these processes is there.
pub(crate) async fn all_gone(pids: &[u32]) {
    until("processes end", || async {
        pids.iter().all(|pid| !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    })
    .await;
}
