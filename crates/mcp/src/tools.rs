//! A server of tools without a process: both eras, no sessions, nothing to remember.
//!
//! The tools are those that this program offers itself. A client of the older era gets no `Mcp-Session-Id`, which that
//! era allows; such a server would send nothing unasked.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    answer::{self, Answer, BridgeBody},
    config::BridgeConfig,
    envelope::{Kind, MOST_VALUES, Malformed, Message},
    event_buffer::{EventBuffer, Limits},
    headers,
    modern::{self, supported},
    origin_guard,
    rpc::{self, Failure},
    versions::{LEGACY_VERSIONS, NEWEST, NEWEST_LEGACY},
};

/// The time for which clients of the newer era may believe a list.
const LIST_TTL_MS: u64 = 60_000;

/// The time that an answer may take until a stream is opened for it. Nothing comes before an answer, so a stream is of
/// use only where silence would be taken for a lost connection; a plain answer has a status that says more.
const STREAM_AFTER: Duration = Duration::from_secs(5);

/// The tools of one server.
#[async_trait]
pub trait Tools: Send + Sync + 'static {
    /// Name and version, as `serverInfo`.
    fn info(&self) -> Value;

    /// The instructions for a model that is to use the tools.
    fn instructions(&self) -> String;

    /// The tools, as `tools/list` shows them.
    fn list(&self) -> Value;

    /// Whether there is anything to offer now; asked when a client connects.
    ///
    /// # Errors
    /// The reason why not, for the client.
    async fn ready(&self) -> Result<(), String>;

    /// Calls a tool that is in the list. A failure of the tool is a result with `isError`. Dropping the future is how a
    /// client goes away.
    async fn call(&self, name: &str, arguments: Value) -> Value;
}

#[derive(Deserialize)]
#[serde(default)]
struct Parameters {
    #[serde(rename = "protocolVersion")]
    version: String,
    name: String,
    arguments: Value,
}

/// Answers one request to the endpoint of these tools.
pub async fn serve<B>(tools: Arc<dyn Tools>, config: &BridgeConfig, request: Request<B>) -> Response<BridgeBody>
where
    B: http_body::Body + Send,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if !origin_guard::lets_in(config, &head.headers, &head.uri) {
        return answer::error(StatusCode::FORBIDDEN, None, rpc::REFUSED, "this Host or Origin is not let in");
    }
    if head.method != Method::POST {
        return answer::not_allowed("POST");
    }
    let body = match answer::read(body, emergent_budget::Limits::json(config.body_limit, MOST_VALUES)).await {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let message = match Message::parse(body) {
        Ok(message) => message,
        Err(Malformed::NotJson) => {
            return answer::error(StatusCode::BAD_REQUEST, None, rpc::PARSE_ERROR, "the request body is not JSON");
        }
        Err(Malformed::Batch | Malformed::NotAMessage) => {
            let text = "the request body is not one JSON-RPC 2.0 message";
            return answer::error(StatusCode::BAD_REQUEST, None, rpc::INVALID_REQUEST, text);
        }
    };
    let modern = modern::is_modern(&head.headers, &message);
    match message.kind.clone() {
        Kind::Request(method) => answered(tools, config, &head.headers, message, method, modern).await,
        // Nothing that a client tells, or answers, is of use here.
        Kind::Notification(_) | Kind::Result | Kind::Error { .. } => answer::empty(StatusCode::ACCEPTED),
    }
}

async fn answered(
    tools: Arc<dyn Tools>,
    config: &BridgeConfig,
    request_headers: &HeaderMap,
    message: Message,
    method: Box<str>,
    modern: bool,
) -> Answer {
    let id = message.raw_id().unwrap_or("null").to_owned();
    if modern && let Err(mismatch) = headers::check(request_headers, &message, &method) {
        return answer::error(StatusCode::BAD_REQUEST, Some(&id), mismatch.code(), &mismatch.to_string());
    }
    let (event_buffer, mut reader) =
        EventBuffer::answering(0, 1, Limits { replay: 0, unsent: usize::MAX, stall: Duration::ZERO });
    let working = tokio::spawn(async move {
        let line = match dispatch(&*tools, &message, &method, modern).await {
            Ok(result) => Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
            Err(failure) => failure.line(Some(&id)),
        };
        event_buffer.push_now(line, true);
    });
    // The task belongs to this answer: it ends with its client.
    let working = working.abort_handle();
    reader.on_leaving(move || working.abort());
    if timeout(STREAM_AFTER, reader.only_one()).await == Ok(true)
        && let Some(event) = reader.next().await
    {
        return if modern { modern::answered(event.line) } else { answer::json(StatusCode::OK, event.line) };
    }
    answer::events(reader, None, config.keep_alive)
}

async fn dispatch(tools: &dyn Tools, message: &Message, method: &str, modern: bool) -> Result<Value, Failure> {
    let params = message.params.clone().and_then(|place| message.line.get(place));
    let params: Parameters = params.and_then(|params| serde_json::from_slice(params).ok()).unwrap_or_default();
    let capabilities = json!({ "tools": {} });
    let mut result = match method {
        "initialize" if !modern => {
            tools.ready().await.map_err(|why| Failure::new(rpc::INTERNAL_ERROR, why))?;
            let known = LEGACY_VERSIONS.into_iter().find(|version| *version == params.version);
            json!({
                "protocolVersion": known.unwrap_or(NEWEST_LEGACY), "capabilities": capabilities,
                "serverInfo": tools.info(), "instructions": tools.instructions(),
            })
        }
        "ping" if !modern => json!({}),
        "server/discover" if modern => {
            supported(message)?;
            tools.ready().await.map_err(|why| Failure::new(rpc::INTERNAL_ERROR, why))?;
            json!({
                "supportedVersions": [NEWEST], "capabilities": capabilities, "instructions": tools.instructions(),
                "ttlMs": LIST_TTL_MS, "cacheScope": "private",
            })
        }
        "tools/list" => {
            let mut result = json!({ "tools": tools.list() });
            if modern {
                supported(message)?;
                result["ttlMs"] = json!(LIST_TTL_MS);
                result["cacheScope"] = json!("private");
            }
            result
        }
        "tools/call" => {
            if modern {
                supported(message)?;
            }
            let list = tools.list();
            let known = list.as_array().into_iter().flatten().any(|tool| tool["name"] == params.name.as_str());
            if !known {
                let text = format!("there is no tool {:?}; tools/list shows what there is", params.name);
                return Err(Failure::new(rpc::INVALID_PARAMS, text));
            }
            tools.call(&params.name, params.arguments).await
        }
        _ => return Err(Failure::new(rpc::METHOD_NOT_FOUND, format!("there is no method {method:?}"))),
    };
    if modern {
        result["resultType"] = json!("complete");
        result["_meta"]["io.modelcontextprotocol/serverInfo"] = tools.info();
    }
    Ok(result)
}

// === impl Parameters ===

impl Default for Parameters {
    fn default() -> Self {
        Self { version: String::new(), name: String::new(), arguments: json!({}) }
    }
}
