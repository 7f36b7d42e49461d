//! The newer era over HTTP (2026-07-28): no sessions, every request says all there is to know.
//!
//! One warm child answers all clients, with ids, progress tokens and subscription ids of ours. A client that goes
//! away cancels its request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    answer::{self, Answer},
    bridge_state::BridgeState,
    child_connection::{Ask, AskError, ChildConnection, Serves},
    child_record::ChildRecord,
    envelope::{Kind, Message, string_of},
    event::Era,
    event_buffer::{EventBuffer, Reader},
    handshake::{Discovered, discovered_versions, meta, result_of},
    headers::{self, HeaderRules, Mismatch, PAGES},
    rpc::{self, Failure},
    shared_child::{EndUnlessKept, Kept, StartError},
    versions::{LEGACY_VERSIONS, NEWEST},
};

/// The time that a server has to say that it does not know `server/discover`.
const DISCOVER_WITHIN: Duration = Duration::from_secs(20);

/// The time that calls wait for a child to list its tools.
const RULES_WITHIN: Duration = Duration::from_secs(5);

const EVENTS: &str = "text/event-stream";

/// Whether a request is of this era: by its headers, its method or its `_meta`.
pub(crate) fn is_modern(headers: &HeaderMap, message: &Message) -> bool {
    let method = match &message.kind {
        Kind::Request(method) | Kind::Notification(method) => method.as_ref(),
        Kind::Result | Kind::Error { .. } => "",
    };
    let said = answer::text(headers, &answer::VERSION);
    said.is_some_and(|version| !LEGACY_VERSIONS.contains(&version))
        || matches!(method, "server/discover" | "subscriptions/listen")
        || message.params().meta().is_some_and(|meta| meta.version.is_some())
}

impl BridgeState {
    /// Answers one message of a client.
    pub(crate) async fn modern_post(self: &Arc<Self>, headers: &HeaderMap, message: &Message) -> Answer {
        let id = message.raw_id();
        let (connection, discovered) = match self.modern_child().await {
            Ok(found) => found,
            Err(error) => return error.answer(id),
        };
        let method = match &message.kind {
            Kind::Request(method) => method,
            Kind::Notification(method) => return notified(headers, &connection, message, method).await,
            Kind::Result | Kind::Error { .. } => {
                let text = "this protocol version has no answers from clients; send the request again with its inputs";
                return answer::error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, text);
            }
        };
        if let Err(mismatch) = self.check(headers, message, method, &connection, &discovered).await {
            return answer::error(StatusCode::BAD_REQUEST, id, mismatch.code(), &mismatch.to_string());
        }
        let listens = method.as_ref() == "subscriptions/listen";
        let patience = (!listens).then_some(self.context.config.call_timeout);
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let ask = Ask { message, event_buffer: &event_buffer, session: None, patience };
        match connection.ask(ask).await {
            Ok(key) => reader.on_leaving(move || connection.abandon(&key, "the client went away")),
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
    pub(crate) async fn modern_child(self: &Arc<Self>) -> Result<Kept<Discovered>, StartError> {
        if self.era() == Some(Era::Legacy) {
            return Err(StartError::NotModern);
        }
        let state = Arc::clone(self);
        self.modern.alive_or_started(&self.context, || async move { state.start_modern().await }).await
    }

    async fn start_modern(&self) -> Result<Kept<Discovered>, StartError> {
        let (connection, guard) = self.launch(Serves::Requests).await?;
        let params = format!(r#"{{"_meta":{{{}}}}}"#, meta(NEWEST));
        let asking = self.ask_self(&connection, "server/discover", &params);
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
        let versions = discovered_versions(&said);
        if versions.iter().all(|version| LEGACY_VERSIONS.contains(&version.as_str())) {
            self.set_era(Era::Legacy);
            return Err(StartError::NotModern);
        }
        self.set_era(Era::Modern);
        self.keep(connection, guard, versions).await
    }

    async fn keep(
        &self,
        connection: Arc<ChildConnection>,
        guard: EndUnlessKept,
        versions: Vec<String>,
    ) -> Result<Kept<Discovered>, StartError> {
        connection.note(&ChildRecord::Modern { versions: versions.clone() }).await;
        guard.keep();
        Ok(self.modern.put(connection, Discovered::of(versions)))
    }

    /// Checks that headers and body say the same.
    async fn check(
        &self,
        headers: &HeaderMap,
        message: &Message,
        method: &str,
        connection: &ChildConnection,
        discovered: &Discovered,
    ) -> Result<(), Mismatch> {
        headers::check(headers, message, method)?;
        if method != "tools/call" {
            return Ok(());
        }
        let params = message.params();
        let Some(tool) = params.name.and_then(string_of) else { return Ok(()) };
        let changed = connection.tools_changed.swap(false, std::sync::atomic::Ordering::AcqRel);
        let mut rules = discovered.rules.lock().await;
        if changed || rules.as_ref().is_none_or(HeaderRules::is_old) {
            *rules = Some(self.rules_soon(connection, discovered).await);
        }
        let verdict = |rules: &Option<HeaderRules>| {
            rules.as_ref().map_or(Ok(()), |rules| rules.check(headers, &tool, params.arguments))
        };
        if verdict(&rules).is_err() && !changed {
            // A tool may have changed without a word: nobody is refused for what was once true.
            *rules = Some(self.rules_soon(connection, discovered).await);
        }
        verdict(&rules)
    }

    /// The rules, or none where the child does not tell its tools: it then checks the headers itself.
    async fn rules_soon(&self, connection: &ChildConnection, discovered: &Discovered) -> HeaderRules {
        timeout(RULES_WITHIN, self.rules(connection, discovered)).await.unwrap_or_default()
    }

    /// Asks the child for its tools.
    async fn rules(&self, connection: &ChildConnection, discovered: &Discovered) -> HeaderRules {
        let mut rules = HeaderRules::default();
        let mut cursor = None;
        for _ in 0..PAGES {
            let at = cursor.map_or_else(String::new, |cursor| format!(r#""cursor":{cursor},"#));
            let params = format!(r#"{{{at}"_meta":{{{}}}}}"#, discovered.meta());
            let Ok(said) = self.ask_self(connection, "tools/list", &params).await else { break };
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
async fn notified(headers: &HeaderMap, connection: &ChildConnection, message: &Message, method: &str) -> Answer {
    if let Err(mismatch) = headers::check_method(headers, method) {
        return answer::error(StatusCode::BAD_REQUEST, None, mismatch.code(), &mismatch.to_string());
    }
    if !matches!(method, "notifications/cancelled" | "notifications/progress" | "notifications/initialized") {
        // A child that has just ended needs no notification.
        let _ = connection.send(message.line.clone()).await;
    }
    answer::empty(StatusCode::ACCEPTED)
}
