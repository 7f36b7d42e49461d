//! A plain client of the REST API, as any user of it would write.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The path of workspaces in the API.
pub const WORKSPACES: &str = "/api/v1/agent/workspaces";

/// The path of snapshots in the API.
pub const SNAPSHOTS: &str = "/api/v1/agent/snapshots";

/// A server's address and a token for it.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// A status and the JSON that came with it (`null` when there was none).
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// The body of a success.
    ///
    /// # Errors
    /// Any other status, with the problem that came.
    pub fn success(self) -> anyhow::Result<Value> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// The problem of a refusal with this status.
    ///
    /// # Errors
    /// Any other status.
    pub fn refusal(self, status: u16) -> anyhow::Result<Value> {
        ensure!(self.status.as_u16() == status, "expected {status}, got {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Api {
    /// A client for the server at `base`.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(base: impl Into<String>, token: impl Into<String>) -> anyhow::Result<Self> {
        // Another part of the process may have installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        // Shorter than the server's own patience: a connection that a server has closed meanwhile is not used again.
        let idle = Duration::from_secs(10);
        let client = reqwest::Client::builder().tcp_nodelay(true).pool_idle_timeout(idle);
        let http = client.build().context("building the HTTP client")?;
        Ok(Self { http, base: base.into(), token: token.into() })
    }

    /// The same server with another token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self.clone() }
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The server's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request with the token, to be completed and sent by the caller.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Sends a request and reads the JSON answer.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers with something that is neither JSON nor empty.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
        let response = request.send().await.context("sending a request")?;
        let status = response.status();
        let text = response.text().await.context("reading an answer")?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("{status} with a body that is not JSON: {text}"))?
        };
        Ok(Reply { status, body })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Reply> {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<Reply> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Returns all items of a list, over all of its pages.
    ///
    /// # Errors
    /// When a page does not come.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=200{cursor}")).await?.success()?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Creates a workspace and waits until it is ready; answers its id.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn create(&self, body: Value) -> anyhow::Result<String> {
        let workspace = self.post(WORKSPACES, body).await?.success()?;
        ensure!(workspace["state"] == "ready", "the workspace is not ready: {workspace}");
        Ok(workspace["id"].as_str().context("a workspace without an id")?.to_owned())
    }

    /// Creates a workspace with nothing asked for.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn create_default(&self) -> anyhow::Result<String> {
        self.create(json!({})).await
    }

    /// A workspace as the API shows it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn workspace(&self, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("{WORKSPACES}/{id}")).await?.success()
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn tool(&self, id: &str, tool: &str, body: Value) -> anyhow::Result<Reply> {
        self.post(&format!("{WORKSPACES}/{id}/{tool}"), body).await
    }

    /// Runs a command that must succeed, and answers its standard output.
    ///
    /// # Errors
    /// When the call fails or the command exits with anything but 0.
    pub async fn bash(&self, id: &str, command: &str) -> anyhow::Result<String> {
        let result = self.tool(id, "bash", json!({ "command": command })).await?.success()?;
        ensure!(result["exit_code"] == 0, "{command}: {result}");
        Ok(result["stdout"].as_str().context("no stdout")?.to_owned())
    }

    /// Waits until a workspace is in a state.
    ///
    /// # Errors
    /// When it is not within `at_most`.
    pub async fn await_state(&self, id: &str, state: &str, at_most: Duration) -> anyhow::Result<Value> {
        crate::until(&format!("workspace {id} becomes {state}"), at_most, || async {
            let workspace = self.workspace(id).await?;
            Ok(if workspace["state"] == state { Ok(workspace) } else { Err(workspace.to_string()) })
        })
        .await
    }
}
