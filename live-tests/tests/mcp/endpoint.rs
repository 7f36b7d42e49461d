//! The endpoint of a hosted server as MCP clients see it.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime};
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::host::{SERVERS, host, start, tool};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::sessions_have_processes_of_their_own_and_outlive_our_crash", sessions_outlive_our_crash),
        Case::new("mcp::only_those_are_let_in_who_may_use_it", only_those_are_let_in_who_may),
        Case::new("mcp::an_http_server_is_reached_without_a_network", an_http_server_is_reached),
    ]
}

struct Session<'a> {
    api: &'a emergent_live_tests::Api,
    id: String,
}

impl<'a> Session<'a> {
    async fn open(api: &'a emergent_live_tests::Api) -> anyhow::Result<Self> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "live", "version": "1" } } });
        let answer = post(api, &body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let id = answer.headers().get("mcp-session-id").context("no session")?.to_str()?.to_owned();
        Ok(Self { api, id })
    }

    async fn count(&self) -> anyhow::Result<String> {
        let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": { "name": "count", "arguments": {} } });
        let request = post(self.api, &body).header("mcp-session-id", &self.id);
        let answer = request.header("mcp-protocol-version", "2025-11-25").send().await?.text().await?;
        let json = answer.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&answer);
        let value: Value = serde_json::from_str(json).with_context(|| answer.clone())?;
        Ok(value["result"]["content"][0]["text"].as_str().context(answer)?.to_owned())
    }
}

fn post(api: &emergent_live_tests::Api, body: &Value) -> reqwest::RequestBuilder {
    let request = api.request(Method::POST, &format!("{SERVERS}/fixture/mcp"));
    request.header(header::ACCEPT, "application/json, text/event-stream").json(body)
}

async fn sessions_outlive_our_crash(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let ids = {
        let (one, other) = (Session::open(&server.api).await?, Session::open(&server.api).await?);
        ensure!(one.count().await? == "1" && one.count().await? == "2" && other.count().await? == "1");
        [one.id, other.id]
    };
    server.kill()?;
    server.respawn(|_| {})?;
    server.await_ready().await?;
    let [one, other] = ids.map(|id| Session { api: &server.api, id });
    crate::host::await_server(&server.api, "it is adopted", std::time::Duration::from_secs(20), |server| {
        server["state"] == "running"
    })
    .await?;
    ensure!(one.count().await? == "3" && other.count().await? == "2");
    Ok(())
}

async fn only_those_are_let_in_who_may(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });

    let stranger = post(&server.api.with_token("nobody"), &body).send().await?;
    ensure!(stranger.status() == 401, "{}", stranger.status());
    let challenge = stranger.headers().get(header::WWW_AUTHENTICATE).context("no challenge")?.to_str()?.to_owned();
    let url = challenge.split('"').nth(1).context("no metadata")?;
    let path = url.strip_prefix(server.api.base()).with_context(|| url.to_owned())?;
    let metadata = server.api.with_token("nobody").get(path).await?.success()?;
    ensure!(metadata["resource"] == format!("{}{SERVERS}/fixture/mcp", server.api.base()), "{metadata}");

    let token = |scope: &str| {
        let body = json!({ "name": scope, "scopes": [scope] });
        let api = server.api.clone();
        async move {
            let made = api.post("/api/v1/tokens", body).await?.success()?;
            anyhow::Ok(api.with_token(made["secret"].as_str().context("no secret")?))
        }
    };
    let reader = token("admin:read").await?;
    ensure!(post(&reader, &body).send().await?.status() == 403);
    tool(&reader, "count", json!({})).await?.refusal(403)?;
    let user = token("mcp:use").await?;
    tool(&user, "count", json!({})).await?.success()?;
    Session::open(&user).await?;
    user.delete(&format!("{SERVERS}/fixture")).await?.refusal(403)?;
    user.get(SERVERS).await?.refusal(403)?;

    let foreign = post(&server.api, &body).header(header::ORIGIN, "https://evil.example").send().await?;
    ensure!(foreign.status() == 403, "{}", foreign.status());
    let rebound = post(&server.api, &body).header(header::HOST, "evil.example").send().await?;
    ensure!(rebound.status() == 421, "{}", rebound.status());
    Ok(())
}

async fn an_http_server_is_reached(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let script = "
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        if 'authorization' in self.headers: body = b'a token came along'
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.send_header('x-path', self.path)
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', 8123), Echo).serve_forever()
";
    host(&server.api, json!({ "stdio_bridge": false, "port": 8123, "path": "/rpc", "cmd": ["python3", "-c", script] }))
        .await?;
    let body = json!({ "text": "x".repeat(3 << 20) });
    let sent = body.to_string();
    emergent_live_tests::until("it listens", std::time::Duration::from_secs(20), || async {
        let answer = post(&server.api, &body).send().await?;
        let (status, path) = (answer.status(), answer.headers().get("x-path").cloned());
        let echo = answer.text().await?;
        let right = status == 200 && path.is_some_and(|path| path == "/rpc") && echo == sent;
        Ok(if right { Ok(()) } else { Err(format!("{status}: {}", &echo[..echo.len().min(300)])) })
    })
    .await
}
