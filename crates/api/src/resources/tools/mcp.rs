//! A workspace as an MCP server: the seven tools, for clients that speak MCP.
//!
//! A call becomes a request to the tool's own route, with the caller's token and session: scopes, checks, limits and
//! the audit are those of that route. Schemas come from the OpenAPI document, so that the two never differ.

mod schema;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, Method, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use emergent_budget::Account;
use emergent_mcp::{BridgeConfig, Tools, tools::serve};
use emergent_store::Tool;
use emergent_types::WorkspaceId;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;

use crate::{
    auth::Caller,
    http::{
        SESSION,
        extract::WorkspacePath,
        observe::{RequestId, Verbatim},
        rates::Counted,
    },
};

/// The longest message that is taken, and the longest answer of a tool that is passed on, in bytes. Larger contents go
/// through the REST API, which makes fewer copies of them.
const LONGEST: usize = 8 << 20;
/// The memory that a message and an answer take in addition to the memory of the tool's own route, in bytes for each
/// byte of text: for a tree of values and its text.
const WEIGHT: usize = 4;

const INSTRUCTIONS: &str = "The tools work in one isolated Linux workspace. Paths are absolute or relative to \
                            /workspace, which keeps its files. Commands run as an unprivileged user, with the output \
                            cut in the middle when it is long; the answer then names files that have all of it.";

/// The tools of one workspace, as one caller may use them.
struct OfWorkspace {
    workspace: WorkspaceId,
    /// The routes of the API, without the layers that a request passes only once.
    api: Router,
    /// The headers that identify the caller.
    headers: HeaderMap,
    request: Option<RequestId>,
    tools: Arc<Value>,
    /// The account that holds the memory of the message and its answer.
    account: Option<Account>,
}

/// Returns the endpoint, which calls the routes of the API.
pub(crate) fn route(api: Router, document: &OpenApi) -> axum::routing::MethodRouter<crate::state::ApiState> {
    let tools = Arc::new(schema::tools(document));
    any(move |caller: Caller, WorkspacePath(workspace): WorkspacePath, request: Request| {
        let tools = enabled(&tools, caller.principal().grants.tools.as_ref());
        let of = OfWorkspace::new(workspace, api.clone(), tools, &request);
        async move { answer(caller, of, request).await }
    })
}

/// Returns the tools that the caller may use.
fn enabled(all: &Arc<Value>, tools: Option<&BTreeSet<Tool>>) -> Arc<Value> {
    let (Some(tools), Some(all_tools)) = (tools, all.as_array()) else { return Arc::clone(all) };
    let may_use = |name: &Value| tools.iter().any(|tool| name == tool.as_str());
    Arc::new(all_tools.iter().filter(|tool| may_use(&tool["name"])).cloned().collect())
}

async fn answer(_caller: Caller, of: OfWorkspace, request: Request) -> Response {
    // Which hosts the server answers for is asked before: only pages of others are to be kept away here.
    let config = BridgeConfig { allowed_hosts: None, body_limit: LONGEST, ..BridgeConfig::default() };
    let mut answer = serve(Arc::new(of), &config, request).await.into_response();
    answer.extensions_mut().insert(Verbatim);
    answer
}

// === impl OfWorkspace ===

impl OfWorkspace {
    fn new(workspace: WorkspaceId, api: Router, tools: Arc<Value>, request: &Request) -> Self {
        let passed = [header::AUTHORIZATION, SESSION, HeaderName::from_static("traceparent")];
        let headers = passed.into_iter().filter_map(|name| Some((name.clone(), request.headers().get(&name)?.clone())));
        let headers = headers.collect();
        let request = request.extensions().get::<RequestId>().cloned();
        Self { workspace, api, headers, request, tools, account: Account::current() }
    }

    /// Calls the API; returns whether the call succeeded, and the body of the answer.
    async fn ask(&self, method: Method, action: &str, body: Option<&Value>) -> Result<(bool, Value), String> {
        let uri = format!("/api/v1/agent/workspaces/{}{action}", self.workspace);
        let (kind, body) = match body {
            Some(body) => {
                let text = body.to_string();
                self.hold(text.len()).await?;
                (Some("application/json"), Body::from(text))
            }
            None => (None, Body::empty()),
        };
        let mut request = Request::builder().method(method).uri(uri).body(body).map_err(|error| error.to_string())?;
        request.headers_mut().extend(self.headers.clone());
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        }
        request.extensions_mut().insert(Counted);
        if let Some(id) = &self.request {
            request.extensions_mut().insert(id.clone());
        }
        let answer = self.api.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let success = answer.status().is_success();
        let whole = Limited::new(answer.into_body(), LONGEST).collect().await;
        let bytes = whole.map_err(|_| "the answer is too long; ask for less".to_owned())?.to_bytes();
        self.hold(bytes.len()).await?;
        Ok((success, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn hold(&self, bytes: usize) -> Result<(), String> {
        let Some(account) = &self.account else { return Ok(()) };
        account.hold(WEIGHT * bytes).await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Tools for OfWorkspace {
    fn info(&self) -> Value {
        json!({ "name": "emergent-workspace", "title": "Emergent workspace", "version": env!("CARGO_PKG_VERSION") })
    }

    fn instructions(&self) -> String {
        INSTRUCTIONS.to_owned()
    }

    fn list(&self) -> Value {
        Value::clone(&self.tools)
    }

    async fn ready(&self) -> Result<(), String> {
        match self.ask(Method::GET, "", None).await? {
            (true, _) => Ok(()),
            (false, problem) => Err(detail(&problem)),
        }
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        match self.ask(Method::POST, &format!("/{name}"), Some(&arguments)).await {
            Ok((true, result)) => json!({
                "content": [{ "type": "text", "text": text(name, &result) }], "structuredContent": result,
            }),
            Ok((false, problem)) => failed(&detail(&problem)),
            Err(text) => failed(&text),
        }
    }
}

fn failed(text: &str) -> Value {
    json!({ "isError": true, "content": [{ "type": "text", "text": text }] })
}

/// Returns the text of a problem, with all the fields that it blames.
fn detail(problem: &Value) -> String {
    let mut text = problem["detail"].as_str().unwrap_or("the call failed").to_owned();
    for error in problem["errors"].as_array().into_iter().flatten().skip(1) {
        let (field, message) = (error["field"].as_str(), error["message"].as_str());
        text.push_str(&format!("; {}: {}", field.unwrap_or_default(), message.unwrap_or_default()));
    }
    text
}

/// Formats a result for a model: output and contents unchanged, the rest as JSON.
fn text(tool: &str, result: &Value) -> String {
    let part = |name: &str| result[name].as_str().unwrap_or_default();
    match (tool, result.get("content").and_then(Value::as_str)) {
        ("read", Some(content)) => content.to_owned(),
        ("bash", _) => {
            let mut text = part("stdout").to_owned();
            for (name, more) in
                [("stderr", part("stderr")), ("stdout_file", part("stdout_file")), ("stderr_file", part("stderr_file"))]
            {
                if !more.is_empty() {
                    text.push_str(&format!("\n[{name}]\n{more}"));
                }
            }
            let ending = if result["timed_out"] == true { ", timed out" } else { "" };
            text.push_str(&format!("\n[exit code {}{ending}]", result["exit_code"]));
            text
        }
        _ => serde_json::to_string_pretty(result).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_read_as_what_they_are() {
        let result = json!({ "stdout": "a\n", "stderr": "b", "exit_code": 3, "timed_out": true });
        assert_eq!(text("bash", &result), "a\n\n[stderr]\nb\n[exit code 3, timed out]");
        assert_eq!(text("read", &json!({ "kind": "text", "content": "1: x" })), "1: x");
        assert_eq!(text("write", &json!({ "bytes": 1 })), "{\n  \"bytes\": 1\n}");
    }
}
