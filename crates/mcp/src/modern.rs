//! The newer era over HTTP (2026-07-28): no sessions, every request says all there is to know.
//!
//! One warm child answers all clients, with ids, progress tokens and subscription ids of ours. A client that goes
//! away cancels its request.

mod headers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    answer::{self, Answer},
    bridge::Inner,
    child_connection::{Ask, AskError, ChildConnection, Serves},
    child_record::ChildRecord,
    envelope::{Kind, Message, string_of},
    event::Era,
    event_buffer::{EventBuffer, Reader},
    legacy::VERSIONS,
    rpc::{self, Failure},
    shared_child::{EndUnlessKept, Kept, StartError, client_info, result_of},
};

use headers::Mismatch;
pub use headers::{HeaderRules, header_value};
pub(crate) use headers::{PAGES, contradicts};

/// The newest version that we ask for ourselves.
pub(crate) const NEWEST: &str = "2026-07-28";

/// How long a server has to say that it does not know `server/discover`.
const DISCOVER_WITHIN: Duration = Duration::from_secs(20);

/// How long calls wait for a child to list its tools.
const RULES_WITHIN: Duration = Duration::from_secs(5);

const EVENTS: &str = "text/event-stream";

/// The facts about the warm child.
#[derive(Debug)]
pub(crate) struct Modern {
    /// The versions it speaks.
    pub(crate) versions: Vec<String>,
    /// The rules about which arguments of the child's tools are repeated in headers.
    rules: tokio::sync::Mutex<Option<HeaderRules>>,
}

#[derive(Deserialize)]
struct DiscoverResult {
    #[serde(rename = "supportedVersions", default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Unsupported {
    error: UnsupportedError,
}

#[derive(Deserialize)]
struct UnsupportedError {
    data: UnsupportedData,
}

#[derive(Deserialize)]
struct UnsupportedData {
    supported: Vec<String>,
}

/// Whether a request is of this era: by its headers, its method or its `_meta`.
pub(crate) fn is_modern(headers: &HeaderMap, message: &Message) -> bool {
    let method = match &message.kind {
        Kind::Request(method) | Kind::Notification(method) => method.as_ref(),
        Kind::Result | Kind::Error { .. } => "",
    };
    let said = answer::text(headers, &answer::VERSION);
    said.is_some_and(|version| !VERSIONS.contains(&version))
        || matches!(method, "server/discover" | "subscriptions/listen")
        || message.params().meta().is_some_and(|meta| meta.version.is_some())
}

// === impl Modern ===

impl Modern {
    pub(crate) fn of(versions: Vec<String>) -> Self {
        Self { versions, rules: tokio::sync::Mutex::default() }
    }

    /// The version that we speak ourselves.
    pub(crate) fn version(&self) -> &str {
        let newest = self.versions.iter().map(String::as_str).filter(|version| !VERSIONS.contains(version)).max();
        if self.versions.iter().any(|version| version == NEWEST) { NEWEST } else { newest.unwrap_or(NEWEST) }
    }

    /// The `_meta` of requests of our own.
    pub(crate) fn meta(&self) -> String {
        meta(self.version())
    }
}

/// The members of `_meta` that each request has.
fn meta(version: &str) -> String {
    let client = client_info();
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientInfo":{client},"io.modelcontextprotocol/clientCapabilities":{{}}"#
    )
}

impl Inner {
    /// Answers one message of a client.
    pub(crate) async fn modern_post(self: &Arc<Self>, headers: &HeaderMap, message: &Message) -> Answer {
        let id = message.raw_id();
        let (link, modern) = match self.modern_link().await {
            Ok(found) => found,
            Err(error) => return error.answer(id),
        };
        let method = match &message.kind {
            Kind::Request(method) => method,
            Kind::Notification(method) => return notified(headers, &link, message, method).await,
            Kind::Result | Kind::Error { .. } => {
                let text = "this protocol version has no answers from clients; send the request again with its inputs";
                return answer::error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, text);
            }
        };
        if let Err(mismatch) = self.check(headers, message, method, &link, &modern).await {
            return answer::error(StatusCode::BAD_REQUEST, id, mismatch.code(), &mismatch.to_string());
        }
        let listens = method.as_ref() == "subscriptions/listen";
        let patience = (!listens).then_some(self.context.config.call_timeout);
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let ask = Ask { message, event_buffer: &event_buffer, session: None, patience };
        match link.ask(ask).await {
            Ok(key) => reader.on_leaving(move || link.abandon(&key, "the client went away")),
            Err(AskError::Gone) => {
                let text = "the server's process has just ended; try again";
                return answer::error(StatusCode::BAD_GATEWAY, id, rpc::INTERNAL_ERROR, text);
            }
            Err(error @ AskError::Deaf) => {
                return answer::error(StatusCode::GATEWAY_TIMEOUT, id, rpc::TIMED_OUT, &error.to_string());
            }
            Err(error) => return answer::busy(StatusCode::TOO_MANY_REQUESTS, id, &error.to_string()),
        }
        self.answer_once(reader, answer::accepts(headers, EVENTS)).await
    }

    /// The warm child that speaks this era. The first request finds out whether the server does.
    pub(crate) async fn modern_link(self: &Arc<Self>) -> Result<Kept<Modern>, StartError> {
        if self.era() == Some(Era::Legacy) {
            return Err(StartError::NotModern);
        }
        let inner = Arc::clone(self);
        self.modern.alive_or_started(&self.context, || async move { inner.start_modern().await }).await
    }

    async fn start_modern(&self) -> Result<Kept<Modern>, StartError> {
        let (link, guard) = self.launch(Serves::Requests).await?;
        let params = format!(r#"{{"_meta":{{{}}}}}"#, meta(NEWEST));
        let asking = self.ask_self(&link, "server/discover", &params);
        let said = match timeout(DISCOVER_WITHIN, asking).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) if self.era() == Some(Era::Modern) => return Err(error),
            Err(_) if self.era() == Some(Era::Modern) => return Err(StartError::Late(DISCOVER_WITHIN.as_secs())),
            // A server that ends when it is asked something before `initialize` is no modern one; but it may also be
            // broken, so this is not remembered.
            Ok(Err(StartError::Exited(_))) => return Err(StartError::NotModern),
            // One that says nothing is not asked again; but it may only have been slow, so nobody is told.
            Ok(Err(_)) | Err(_) => {
                self.assume_legacy();
                return Err(StartError::NotModern);
            }
        };
        let versions = match said.kind {
            Kind::Error { code: rpc::UNSUPPORTED_VERSION } => {
                let said: Result<Unsupported, _> = serde_json::from_slice(&said.line);
                said.map(|said| said.error.data.supported).unwrap_or_default()
            }
            Kind::Result => {
                let result = result_of(&said.line).ok();
                let result = result.and_then(|result| serde_json::from_str::<DiscoverResult>(result.get()).ok());
                result.map(|result| result.versions).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if versions.iter().all(|version| VERSIONS.contains(&version.as_str())) {
            self.set_era(Era::Legacy);
            return Err(StartError::NotModern);
        }
        self.set_era(Era::Modern);
        self.keep(link, guard, versions).await
    }

    async fn keep(
        &self,
        link: Arc<ChildConnection>,
        guard: EndUnlessKept,
        versions: Vec<String>,
    ) -> Result<Kept<Modern>, StartError> {
        link.note(&ChildRecord::Modern { versions: versions.clone() }).await;
        guard.keep();
        Ok(self.modern.put(link, Modern::of(versions)))
    }

    /// Checks that headers and body say the same.
    async fn check(
        &self,
        headers: &HeaderMap,
        message: &Message,
        method: &str,
        link: &ChildConnection,
        modern: &Modern,
    ) -> Result<(), Mismatch> {
        headers::check(headers, message, method)?;
        if method != "tools/call" {
            return Ok(());
        }
        let params = message.params();
        let Some(tool) = params.name.and_then(string_of) else { return Ok(()) };
        let changed = link.tools_changed.swap(false, std::sync::atomic::Ordering::AcqRel);
        let mut rules = modern.rules.lock().await;
        if changed || rules.as_ref().is_none_or(HeaderRules::is_old) {
            *rules = Some(self.rules_soon(link, modern).await);
        }
        let verdict = |rules: &Option<HeaderRules>| {
            rules.as_ref().map_or(Ok(()), |rules| rules.check(headers, &tool, params.arguments))
        };
        if verdict(&rules).is_err() && !changed {
            // A tool may have changed without a word: nobody is refused for what was once true.
            *rules = Some(self.rules_soon(link, modern).await);
        }
        verdict(&rules)
    }

    /// The rules, or none where the child does not tell its tools: it then checks the headers itself.
    async fn rules_soon(&self, link: &ChildConnection, modern: &Modern) -> HeaderRules {
        timeout(RULES_WITHIN, self.rules(link, modern)).await.unwrap_or_default()
    }

    /// Asks the child for its tools.
    async fn rules(&self, link: &ChildConnection, modern: &Modern) -> HeaderRules {
        let mut rules = HeaderRules::default();
        let mut cursor = None;
        for _ in 0..PAGES {
            let at = cursor.map_or_else(String::new, |cursor| format!(r#""cursor":{cursor},"#));
            let params = format!(r#"{{{at}"_meta":{{{}}}}}"#, modern.meta());
            let Ok(said) = self.ask_self(link, "tools/list", &params).await else { break };
            let Ok(result) = result_of(&said.line) else { break };
            cursor = rules.add(result);
            if cursor.is_none() {
                break;
            }
        }
        rules
    }

    /// The answer as JSON, with its status (errors have one of their own), when it is there in time and alone, else as
    /// a stream.
    async fn answer_once(&self, mut reader: Reader, streams: bool) -> Answer {
        let wait = timeout(self.context.config.json_within, reader.only_one()).await;
        if wait == Ok(true)
            && let Some(event) = reader.next().await
        {
            return answered(event.line);
        }
        if streams {
            return answer::events(reader, None, self.context.config.keep_alive);
        }
        let mut last = None;
        while let Some(event) = reader.next().await {
            last = Some(event.line);
        }
        last.map_or_else(|| answer::empty(StatusCode::ACCEPTED), answered)
    }
}

/// Whether a request is of the version that we speak ourselves.
pub(crate) fn supported(message: &Message) -> Result<(), Failure> {
    let requested = message.params().meta().and_then(|meta| meta.version).and_then(string_of);
    if requested.as_deref() == Some(NEWEST) {
        return Ok(());
    }
    let data = Some(json!({ "supported": [NEWEST], "requested": requested }));
    Err(Failure { code: rpc::UNSUPPORTED_VERSION, message: "Unsupported protocol version".to_owned(), data })
}

/// Whether an error is one that only servers of this era make.
pub(crate) fn is_modern_error(code: i64) -> bool {
    matches!(code, rpc::HEADER_MISMATCH | rpc::MISSING_CAPABILITY | rpc::UNSUPPORTED_VERSION)
}

/// The `_meta` of a request of our own, as a member of `params`.
pub(crate) fn meta_of(version: &str) -> String {
    format!(r#""_meta":{{{}}}"#, meta(version))
}

/// Whether headers and body of a request agree; the error's code and text where they do not.
pub(crate) fn judge(headers: &HeaderMap, message: &Message, method: &str) -> Result<(), (i64, String)> {
    headers::check(headers, message, method).map_err(|mismatch| (mismatch.code(), mismatch.to_string()))
}

/// An answer of the child as the whole response.
pub(crate) fn answered(line: Bytes) -> Answer {
    let kind = Message::parse(line.clone()).map(|message| message.kind);
    let status = match kind {
        Ok(Kind::Error { code: rpc::METHOD_NOT_FOUND }) => StatusCode::NOT_FOUND,
        Ok(Kind::Error { code }) if is_modern_error(code) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    answer::json(status, line)
}

/// Passes on a notification, which belongs to no session here; one that would speak of another client's request goes no
/// further.
async fn notified(headers: &HeaderMap, link: &ChildConnection, message: &Message, method: &str) -> Answer {
    if let Err(mismatch) = headers::check_method(headers, method) {
        return answer::error(StatusCode::BAD_REQUEST, None, mismatch.code(), &mismatch.to_string());
    }
    if !matches!(method, "notifications/cancelled" | "notifications/progress" | "notifications/initialized") {
        // A child that has just ended needs no notification.
        let _ = link.send(message.line.clone()).await;
    }
    answer::empty(StatusCode::ACCEPTED)
}
