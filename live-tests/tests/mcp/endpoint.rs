//! The endpoint of a hosted server as MCP clients see it.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime,
    mcp::{SERVERS, Session, host, post, start, tool},
};
use reqwest::header;
use serde_json::json;

/// The endpoint of the server called `fixture`.
const ENDPOINT: &str = "/api/v1/mcp/servers/fixture/mcp";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::sessions_have_processes_of_their_own_and_outlive_our_crash", sessions_outlive_our_crash),
        Case::new("mcp::only_those_are_let_in_who_may_use_it", only_those_are_let_in_who_may),
        Case::new("mcp::an_http_server_is_reached_without_a_network", an_http_server_is_reached),
    ]
}

async fn count(session: &Session) -> anyhow::Result<String> {
    session.text("count", json!({})).await
}

async fn sessions_outlive_our_crash(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let sessions = {
        let (one, other) = (Session::open(&server.api, ENDPOINT).await?, Session::open(&server.api, ENDPOINT).await?);
        ensure!(count(&one).await? == "1" && count(&one).await? == "2" && count(&other).await? == "1");
        [one, other]
    };
    server.kill()?;
    server.respawn(|_| {})?;
    server.await_ready().await?;
    let [one, other] = sessions;
    emergent_live_tests::mcp::await_server(
        &server.api,
        "it is adopted",
        std::time::Duration::from_secs(20),
        |server| server["state"] == "running",
    )
    .await?;
    ensure!(count(&one).await? == "3" && count(&other).await? == "2");
    Ok(())
}

async fn only_those_are_let_in_who_may(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });

    let stranger = post(&server.api.with_token("nobody"), ENDPOINT, &body).send().await?;
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
    ensure!(post(&reader, ENDPOINT, &body).send().await?.status() == 403);
    tool(&reader, "count", json!({})).await?.refusal(403)?;
    let user = token("mcp:use").await?;
    tool(&user, "count", json!({})).await?.success()?;
    let session = Session::open(&user, ENDPOINT).await?;
    ensure!(count(&session).await? == "1");
    // Who else knows its id has no use for it.
    let other = session.through(&server.api).send("ping", &json!({})).await?;
    ensure!(other.status() == 404, "{}", other.status());
    user.delete(&format!("{SERVERS}/fixture")).await?.refusal(403)?;
    user.get(SERVERS).await?.refusal(403)?;

    let foreign = post(&server.api, ENDPOINT, &body).header(header::ORIGIN, "https://evil.example").send().await?;
    ensure!(foreign.status() == 403, "{}", foreign.status());
    let rebound = post(&server.api, ENDPOINT, &body).header(header::HOST, "evil.example").send().await?;
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
        let answer = post(&server.api, ENDPOINT, &body).send().await?;
        let (status, path) = (answer.status(), answer.headers().get("x-path").cloned());
        let echo = answer.text().await?;
        let right = status == 200 && path.is_some_and(|path| path == "/rpc") && echo == sent;
        Ok(if right { Ok(()) } else { Err(format!("{status}: {}", &echo[..echo.len().min(300)])) })
    })
    .await
}
