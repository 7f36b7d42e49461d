//! The newer era over HTTP (2026-07-28): no sessions, every request says all there is to know.
//!
//! One warm child answers all clients, with ids, progress tokens and subscription ids of ours. A client that goes
//! away cancels its request.

mod headers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    answer::{self, Answer},
    bridge::Inner,
    envelope::{Kind, Message, string_of},
    event::Era,
    legacy::VERSIONS,
    link::{Ask, AskError, Link, Serves},
    note::Note,
    outlet::{Outlet, Reader},
    rpc,
    warm::{EndUnlessKept, StartError, client_info, result_of},
};

use headers::{Mismatch, Rules};

/// The newest version that we ask for ourselves.
pub(crate) const NEWEST: &str = "2026-07-28";

/// How long an answer may take until its status is decided without it: errors have a status of their own.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// How long a server has to say that it does not know `server/discover`.
const DISCOVER_WITHIN: Duration = Duration::from_secs(20);

const EVENTS: &str = "text/event-stream";

/// What is known of the warm child.
#[derive(Debug)]
pub(crate) struct Modern {
    /// The versions it speaks.
    pub(crate) versions: Vec<String>,
    /// Which arguments of its tools are repeated in headers.
    rules: tokio::sync::Mutex<Option<Rules>>,
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

/// Whether a request is of this era: by its headers, or by what its body says of itself.
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
    /// One message of a client.
    pub(crate) async fn modern_post(&self, headers: &HeaderMap, message: &Message) -> Answer {
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
        let (outlet, mut reader) = Outlet::answering(0, 1, self.context.limits_once());
        let ask = Ask { message, outlet: &outlet, session: None, patience };
        match link.ask(ask).await {
            Ok(key) => reader.on_leaving(move || link.abandon(&key, "the client went away")),
            Err(AskError::Gone) => {
                let text = "the server's process has just ended; try again";
                return answer::error(StatusCode::BAD_GATEWAY, id, rpc::INTERNAL_ERROR, text);
            }
            Err(error) => return answer::busy(StatusCode::TOO_MANY_REQUESTS, id, &error.to_string()),
        }
        self.answer_once(reader, answer::accepts(headers, EVENTS)).await
    }

    /// The warm child that speaks this era. The first request finds out whether the server does.
    pub(crate) async fn modern_link(&self) -> Result<(Arc<Link>, Arc<Modern>), StartError> {
        if let Some(alive) = self.modern.alive() {
            return Ok(alive);
        }
        if self.era() == Some(Era::Legacy) {
            return Err(StartError::NotModern);
        }
        let _starting = self.modern.start().await;
        if let Some(alive) = self.modern.alive() {
            return Ok(alive);
        }
        if self.era() == Some(Era::Legacy) {
            return Err(StartError::NotModern);
        }
        let (link, guard) = self.launch(Serves::Requests).await?;
        let params = format!(r#"{{"_meta":{{{}}}}}"#, meta(NEWEST));
        let asking = self.ask_self(&link, "server/discover", &params);
        let said = match timeout(DISCOVER_WITHIN, asking).await {
            Ok(Ok(said)) => said,
            // A server that ends, or says nothing, when it is asked something before `initialize` is no modern one;
            // but it may also be broken, so this is not remembered.
            Ok(Err(error)) if self.era() == Some(Era::Modern) => return Err(error),
            Ok(Err(_)) | Err(_) => return Err(StartError::NotModern),
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
        link: Arc<Link>,
        guard: EndUnlessKept,
        versions: Vec<String>,
    ) -> Result<(Arc<Link>, Arc<Modern>), StartError> {
        link.note(&Note::Modern { versions: versions.clone() }).await;
        guard.keep();
        Ok(self.modern.put(link, Modern::of(versions)))
    }

    /// Whether headers and body say the same.
    async fn check(
        &self,
        headers: &HeaderMap,
        message: &Message,
        method: &str,
        link: &Link,
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
        if changed || rules.as_ref().is_none_or(Rules::is_old) {
            *rules = Some(self.rules(link, modern).await);
        }
        let verdict = |rules: &Option<Rules>| {
            rules.as_ref().map_or(Ok(()), |rules| rules.check(headers, &tool, params.arguments))
        };
        if verdict(&rules).is_err() && !changed {
            // A tool may have changed without a word: nobody is refused for what was once true.
            *rules = Some(self.rules(link, modern).await);
        }
        verdict(&rules)
    }

    /// Asks the child for its tools.
    async fn rules(&self, link: &Link, modern: &Modern) -> Rules {
        let mut rules = Rules::default();
        let mut cursor = None;
        for _ in 0..headers::PAGES {
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

    /// The answer as JSON, with its status, when it is there soon and alone, else as a stream.
    async fn answer_once(&self, mut reader: Reader, streams: bool) -> Answer {
        let wait = timeout(STATUS_WITHIN.max(self.context.config.json_within), reader.only_one()).await;
        if wait == Ok(true)
            && let Some(event) = reader.next().await
        {
            return json(event.line);
        }
        if streams {
            return answer::events(reader, None, self.context.config.keep_alive);
        }
        let mut last = None;
        while let Some(event) = reader.next().await {
            last = Some(event.line);
        }
        last.map_or_else(|| answer::empty(StatusCode::ACCEPTED), json)
    }
}

/// An answer of the child as the whole response.
fn json(line: Bytes) -> Answer {
    let kind = Message::parse(line.clone()).map(|message| message.kind);
    let status = match kind {
        Ok(Kind::Error { code: rpc::METHOD_NOT_FOUND }) => StatusCode::NOT_FOUND,
        Ok(Kind::Error { code: rpc::HEADER_MISMATCH | rpc::MISSING_CAPABILITY | rpc::UNSUPPORTED_VERSION }) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    };
    answer::json(status, line)
}

/// A notification belongs to nobody here; what would speak of another client's request goes no further.
async fn notified(headers: &HeaderMap, link: &Link, message: &Message, method: &str) -> Answer {
    if let Err(mismatch) = headers::check_method(headers, method) {
        return answer::error(StatusCode::BAD_REQUEST, None, mismatch.code(), &mismatch.to_string());
    }
    if !matches!(method, "notifications/cancelled" | "notifications/progress" | "notifications/initialized") {
        // A child that has just ended needs no notification.
        let _ = link.send(message.line.clone()).await;
    }
    answer::empty(StatusCode::ACCEPTED)
}
