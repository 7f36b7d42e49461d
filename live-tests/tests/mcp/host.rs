//! A server that hosts the fixture.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Api, Reply, Runtime, Server, ServerOptions, server::program};
use serde_json::{Value, json};

/// Where hosted servers are in the API.
pub(crate) const SERVERS: &str = "/api/v1/mcp/servers";

/// The image with the fixture, built once for the process; a later run finds it as it is, or replaces it.
pub(crate) fn image() -> anyhow::Result<&'static str> {
    const NAME: &str = "emergent/test-mcp-fixture:live";
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build(NAME).map_err(|error| format!("{error:#}")));
    built.as_ref().map(|()| NAME).map_err(|reason| anyhow::anyhow!("the fixture's image: {reason}"))
}

fn build(name: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(program("emergent-mcp-fixture")?, folder.path().join("fixture")).context("copying the fixture")?;
    let dockerfile = "FROM emergent/workspace:latest\nCOPY fixture /usr/local/bin/fixture\nENTRYPOINT [\"fixture\"]\n";
    std::fs::write(folder.path().join("Dockerfile"), dockerfile)?;
    let built =
        std::process::Command::new("docker").args(["build", "--quiet", "--tag", name]).arg(folder.path()).output();
    let built = built.context("starting docker")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(())
}

/// A server whose default image is the fixture's.
pub(crate) async fn start(runtime: Runtime) -> anyhow::Result<Server> {
    Server::start(ServerOptions::on(runtime).with("WORKSPACE_DEFAULT_IMAGE", image()?)).await
}

/// Registers a server called `fixture` that runs, and answers its id.
pub(crate) async fn host(api: &Api, more: Value) -> anyhow::Result<String> {
    let mut body = json!({ "name": "fixture", "network": "none" });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let made = api.post(SERVERS, body).await?.success()?;
    ensure!(made["state"] == "running", "it does not run: {made}");
    Ok(made["id"].as_str().context("no id")?.to_owned())
}

/// The server called `fixture`.
pub(crate) async fn show(api: &Api) -> anyhow::Result<Value> {
    api.get(&format!("{SERVERS}/fixture")).await?.success()
}

/// Calls one of the fixture's tools by the simple call.
pub(crate) async fn tool(api: &Api, tool: &str, arguments: Value) -> anyhow::Result<Reply> {
    let body =
        json!({ "method": "tools/call", "params": { "name": tool, "arguments": arguments }, "timeout_ms": 10_000 });
    api.post(&format!("{SERVERS}/fixture/call"), body).await
}

/// The text that a tool of the fixture answers.
pub(crate) async fn text(api: &Api, name: &str, arguments: Value) -> anyhow::Result<String> {
    let answer = tool(api, name, arguments).await?.success()?;
    let text = answer["result"]["content"][0]["text"].as_str();
    Ok(text.with_context(|| format!("no text: {answer}"))?.to_owned())
}

/// Waits until the server called `fixture` is as `wanted` says.
pub(crate) async fn await_server(
    api: &Api,
    what: &str,
    at_most: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    emergent_live_tests::until(what, at_most, || async {
        let server = show(api).await?;
        Ok(if wanted(&server) { Ok(server) } else { Err(server.to_string()) })
    })
    .await
}
