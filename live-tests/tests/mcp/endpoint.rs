//! The endpoint of a hosted server as MCP clients see it.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Api, Case, Runtime,
    mcp::{SERVERS, Session, host, post, start, tool, user},
};
use emergent_mcp::{LINE_LIMIT, OUTPUT_KEPT};
use reqwest::header;
use serde_json::json;

/// The endpoint of the server called `fixture`.
const ENDPOINT: &str = "/api/v1/mcp/servers/fixture/mcp";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::sessions_have_processes_of_their_own_and_outlive_our_crash", sessions_outlive_our_crash),
        Case::new("mcp::only_those_are_let_in_who_may_use_it", only_those_are_let_in_who_may),
        Case::new("mcp::an_http_server_is_reached_without_a_network", an_http_server_is_reached),
        Case::new("mcp::a_line_over_the_limit_is_dropped_and_its_process_goes_on", long_lines),
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

async fn long_lines(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let session = Session::open(&server.api, ENDPOINT).await?;
    let around = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":""}]}}"#.len();
    for (length, fits) in [
        (LINE_LIMIT - 1, true),
        (LINE_LIMIT, true),
        (LINE_LIMIT + 1, false),
        (OUTPUT_KEPT + 1, false),
        (40 << 20, false),
    ] {
        let call = json!({ "name": "long_line", "arguments": { "bytes": length - around } });
        let answer = session.ask("tools/call", call).await?;
        if fits {
            let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
            ensure!(text.len() == length - around, "{} of {length}", text.len());
        } else {
            let told = format!("has {length} bytes, more than the limit of {LINE_LIMIT}");
            ensure!(answer["error"]["message"].as_str().is_some_and(|text| text.contains(&told)), "{answer}");
        }
        ensure!(session.text("echo", json!({ "text": "next" })).await? == "next");
    }
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
        if self.path != '/rpc': body = self.path.encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(body)))
        self.send_header('set-cookie', 'session=stolen; path=/')
        self.send_header('location', 'https://evil.example')
        self.send_header('x-other', 'x')
        self.send_header('mcp-session-id', self.headers.get('mcp-session-id', 'inner'))
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
        let status = answer.status();
        let echo = answer.text().await?;
        let right = status == 200 && echo == sent;
        Ok(if right { Ok(()) } else { Err(format!("{status}: {}", &echo[..echo.len().min(300)])) })
    })
    .await?;

    // Of an answer's head, what the protocol has.
    let answer = post(&server.api, ENDPOINT, &json!({})).send().await?;
    for name in ["set-cookie", "location", "x-other"] {
        ensure!(!answer.headers().contains_key(name), "{:?}", answer.headers());
    }
    ensure!(answer.headers()["x-content-type-options"] == "nosniff", "{:?}", answer.headers());
    // A session is there for the token that began it.
    let id = answer.headers().get("mcp-session-id").context("no session")?.to_str()?.to_owned();
    let in_session = |api: &Api, id: &str| post(api, ENDPOINT, &json!({})).header("mcp-session-id", id).send();
    let again = in_session(&server.api, &id).await?;
    ensure!(again.status() == 200 && again.headers()["mcp-session-id"] == id.as_str(), "{again:?}");
    let other = user(&server.api, &["fixture"]).await?;
    for id in [id.as_str(), "inner"] {
        let refused = in_session(&other, id).await?.status();
        ensure!(refused == 404, "{refused} for {id}");
    }
    Ok(())
}
