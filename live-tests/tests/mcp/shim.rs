//! `emergent mcp connect`: endpoints for clients that speak on standard input and output alone.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server,
    mcp::{SERVERS, host, start},
    server::program,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::a_client_on_stdio_reaches_a_hosted_server", hosted),
        Case::new("mcp::a_client_on_stdio_outlives_its_session", outlives_its_session),
        Case::new("mcp::a_client_on_stdio_works_in_a_workspace_in_both_eras", workspace),
    ]
}

/// The program, and both ends of its pipes.
struct Shim {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Shim {
    fn start(server: &Server, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(program("emergent")?)
            .args(["mcp", "connect", "--server", server.api.base()])
            .args(arguments)
            .env("EMERGENT_TOKEN", server.api.token())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the shim")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, input, output })
    }

    async fn say(&mut self, message: Value) -> anyhow::Result<()> {
        self.input.write_all(format!("{message}\n").as_bytes()).await.context("writing to the shim")
    }

    async fn ask(&mut self, message: Value) -> anyhow::Result<Value> {
        let id = message["id"].clone();
        self.say(message).await?;
        loop {
            let line = timeout(Duration::from_secs(60), self.output.next_line()).await.context("no answer")??;
            let answer: Value = serde_json::from_str(&line.context("the shim has ended")?)?;
            if answer["id"] == id {
                return Ok(answer);
            }
        }
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let client = json!({ "name": "live", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let opened = self.ask(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })).await?;
        ensure!(opened["result"]["protocolVersion"] == "2025-11-25", "{opened}");
        self.say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await
    }

    /// Closes the program's input; the program must then end by itself.
    async fn close(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status = timeout(Duration::from_secs(20), self.child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

async fn hosted(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let mut shim = Shim::start(&server, &["fixture"])?;
    shim.open().await?;
    for count in ["1", "2"] {
        let call = json!({ "jsonrpc": "2.0", "id": count, "method": "tools/call",
            "params": { "name": "count", "arguments": {} } });
        let counted = shim.ask(call).await?;
        ensure!(counted["result"]["content"][0]["text"] == count, "{counted}");
    }
    // In the newer era an argument is repeated in a header where the tool asks for that.
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    let call = json!({ "jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {
        "name": "test_x_mcp_header", "arguments": { "region": "Zürich" }, "_meta": meta } });
    let repeated = shim.ask(call).await?;
    ensure!(repeated["result"]["content"].is_array(), "{repeated}");
    // An error of the server's own comes back as it is.
    let wrong = shim.ask(json!({ "jsonrpc": "2.0", "id": 9, "method": "no/such" })).await?;
    ensure!(wrong["error"]["code"] == -32601, "{wrong}");
    shim.close().await
}

async fn outlives_its_session(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let mut shim = Shim::start(&server, &["fixture"])?;
    shim.open().await?;
    let count = |id: u32| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "count", "arguments": {} } })
    };
    ensure!(shim.ask(count(2)).await?["result"]["content"][0]["text"] == "1");
    let restart = format!("{SERVERS}/fixture/restart");
    server.api.post(&restart, json!({})).await?.success()?;
    // Another process, in another session; and it stays that one.
    ensure!(shim.ask(count(3)).await?["result"]["content"][0]["text"] == "1");
    ensure!(shim.ask(count(4)).await?["result"]["content"][0]["text"] == "2");
    // What cannot be mended is told in words of the command line.
    server.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    let gone = shim.ask(count(5)).await?;
    ensure!(gone["error"]["message"].as_str().is_some_and(|text| text.contains("`emergent mcp ls`")), "{gone}");
    drop(shim);
    Ok(())
}

async fn workspace(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "name": "by-stdio", "network": "none" })).await?;
    let mut shim = Shim::start(&server, &["--workspace", "by-stdio"])?;
    shim.open().await?;
    let listed = shim.ask(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" })).await?;
    ensure!(listed["result"]["tools"].as_array().is_some_and(|tools| tools.len() == 7), "{listed}");
    let call = |id: u32, command: &str, meta: Value| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": "bash", "arguments": { "command": command }, "_meta": meta } })
    };
    let wrote = shim.ask(call(3, "echo kept > file; echo $((6 * 7))", json!({}))).await?;
    ensure!(wrote["result"]["structuredContent"]["stdout"] == "42\n", "{wrote}");
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    let read = shim.ask(call(4, "cat file", meta)).await?;
    ensure!(read["result"]["structuredContent"]["stdout"] == "kept\n", "{read}");
    shim.close().await?;
    ensure!(server.api.bash(&id, "cat file").await? == "kept\n");
    Ok(())
}
