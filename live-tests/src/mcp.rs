//! Hosted MCP servers: the fixture of `crates/mcp` in a container of its own.

use std::{
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use crate::{Api, Reply, Runtime, Server, ServerOptions, server::program};
use anyhow::{Context as _, ensure};
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

/// The path of hosted servers in the API.
pub const SERVERS: &str = "/api/v1/mcp/servers";

/// The image with the fixture, built once for the process; a later run finds it as it is, or replaces it.
///
/// # Errors
/// When the fixture or Docker is missing.
pub fn image() -> anyhow::Result<&'static str> {
    const NAME: &str = "emergent/test-mcp-fixture:live";
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build(NAME).map_err(|error| format!("{error:#}")));
    built.as_ref().map(|()| NAME).map_err(|reason| anyhow::anyhow!("the fixture's image: {reason}"))
}

/// Runs one of the project's scripts, which has the token of its server.
///
/// # Errors
/// When the script cannot be started; its exit status is in the output that is returned.
pub async fn script(api: &Api, name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name));
    command.args(arguments).env("MCP_AUTHORIZATION", format!("Bearer {}", api.token()));
    tokio::task::spawn_blocking(move || command.output()).await?.with_context(|| format!("starting {name}"))
}

fn build(name: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(program("emergent-mcp-fixture")?, folder.path().join("fixture")).context("copying the fixture")?;
    let dockerfile = "FROM emergent/workspace:latest\nCOPY fixture /usr/local/bin/fixture\nENTRYPOINT [\"fixture\"]\n";
    std::fs::write(folder.path().join("Dockerfile"), dockerfile)?;
    let built = Command::new("docker").args(["build", "--quiet", "--tag", name]).arg(folder.path()).output();
    let built = built.context("starting docker")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(())
}

/// A server whose default image is the fixture's.
///
/// # Errors
/// When it does not become ready.
pub async fn start(runtime: Runtime) -> anyhow::Result<Server> {
    Server::start(ServerOptions::on(runtime).with("WORKSPACE_DEFAULT_IMAGE", image()?)).await
}

/// Registers a server called `fixture` that runs, and answers its id.
///
/// # Errors
/// When it does not run.
pub async fn host(api: &Api, more: Value) -> anyhow::Result<String> {
    let mut body = json!({ "name": "fixture", "network": "none" });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let made = api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "running", "it does not run: {made}");
    Ok(made["id"].as_str().context("no id")?.to_owned())
}

/// The server called `fixture`.
///
/// # Errors
/// When it is not there.
pub async fn show(api: &Api) -> anyhow::Result<Value> {
    api.get(&format!("{SERVERS}/fixture")).await?.success()
}

/// Calls one of the fixture's tools by the simple call.
///
/// # Errors
/// When the server cannot be reached.
pub async fn tool(api: &Api, tool: &str, arguments: Value) -> anyhow::Result<Reply> {
    let body =
        json!({ "method": "tools/call", "params": { "name": tool, "arguments": arguments }, "timeout_ms": 10_000 });
    api.post(&format!("{SERVERS}/fixture/call"), body).await
}

/// The text that a tool of the fixture answers.
///
/// # Errors
/// When it answers none.
pub async fn text(api: &Api, name: &str, arguments: Value) -> anyhow::Result<String> {
    let answer = tool(api, name, arguments).await?.success()?;
    let text = answer["result"]["content"][0]["text"].as_str();
    Ok(text.with_context(|| format!("no text: {answer}"))?.to_owned())
}

/// Waits until the server called `fixture` is as `wanted` says.
///
/// # Errors
/// When it is not in time.
pub async fn await_server(
    api: &Api,
    what: &str,
    at_most: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    crate::until(what, at_most, || async {
        let server = show(api).await?;
        Ok(if wanted(&server) { Ok(server) } else { Err(server.to_string()) })
    })
    .await
}

/// A session of the older era at an endpoint.
pub struct Session {
    /// The client that speaks.
    pub api: Api,
    /// The path of the endpoint.
    pub path: String,
    /// The session's id.
    pub id: String,
}

impl Session {
    /// Begins a session.
    ///
    /// # Errors
    /// When the endpoint begins none.
    pub async fn open(api: &Api, path: &str) -> anyhow::Result<Self> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "live", "version": "1" } } });
        let answer = post(api, path, &body).send().await?;
        ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
        let id = answer.headers().get("mcp-session-id").context("no session")?.to_str()?.to_owned();
        Ok(Self { api: api.clone(), path: path.to_owned(), id })
    }

    /// The same session, as somebody else or elsewhere.
    #[must_use]
    pub fn through(&self, api: &Api) -> Self {
        Self { api: api.clone(), path: self.path.clone(), id: self.id.clone() }
    }

    /// Sends a request in the session.
    ///
    /// # Errors
    /// When the endpoint cannot be reached.
    pub async fn send(&self, method: &str, params: &Value) -> anyhow::Result<reqwest::Response> {
        let body = json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params });
        let request = post(&self.api, &self.path, &body).header("mcp-session-id", &self.id);
        request.header("mcp-protocol-version", "2025-11-25").send().await.context("sending a message")
    }

    /// The answer to a request, whether it is JSON or the last of a stream of events.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let answer = self.send(method, &params).await?.text().await?;
        let last = answer.lines().rev().find_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty()));
        serde_json::from_str(last.unwrap_or(&answer)).with_context(|| answer.clone())
    }

    /// The text that a tool answers.
    ///
    /// # Errors
    /// When it answers none.
    pub async fn text(&self, tool: &str, arguments: Value) -> anyhow::Result<String> {
        let answer = self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await?;
        let text = answer["result"]["content"][0]["text"].as_str();
        Ok(text.with_context(|| format!("no text: {answer}"))?.to_owned())
    }

    /// The names of all tools, over all pages.
    ///
    /// # Errors
    /// When they are not listed.
    pub async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let (mut names, mut params) = (Vec::new(), json!({}));
        loop {
            let answer = self.ask("tools/list", params).await?;
            let tools = answer["result"]["tools"].as_array().with_context(|| format!("no tools: {answer}"))?;
            names.extend(tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned));
            match answer["result"]["nextCursor"].as_str() {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return Ok(names),
            }
        }
    }
}

/// A message to an endpoint, to be completed and sent by the caller.
pub fn post(api: &Api, path: &str, body: &Value) -> reqwest::RequestBuilder {
    api.request(reqwest::Method::POST, path).header(ACCEPT, "application/json, text/event-stream").json(body)
}

/// A client with a token that may use these servers and nothing else.
///
/// # Errors
/// When the token is not made.
pub async fn user(api: &Api, servers: &[&str]) -> anyhow::Result<Api> {
    let body = json!({ "name": "user", "scopes": ["mcp:use"], "mcp_servers": servers });
    let made = api.post("/api/v1/tokens", body).await?.success()?;
    ensure!(made["token"]["mcp_servers"] == json!(servers), "{made}");
    Ok(api.with_token(made["secret"].as_str().context("no secret")?))
}
