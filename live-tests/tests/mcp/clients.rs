//! The official Python and TypeScript clients, two editions of each, against our own server's endpoints.

use anyhow::ensure;
use emergent_live_tests::{
    Api, Case, Runtime, Server,
    mcp::{host, script, start},
};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::official_clients_use_a_workspaces_tools", workspace),
        Case::new("mcp::official_clients_use_the_endpoint_for_all_servers", gateway),
    ]
}

/// Runs all clients: each lists the tools at an endpoint and calls one, whose answer must contain a text.
async fn all_clients(api: &Api, path: &str, tool: &str, arguments: &str, expected: &str) -> anyhow::Result<()> {
    let url = format!("{}{path}", api.base());
    let ran = script(api, "mcp-clients/try.sh", &[&url, tool, arguments, expected]).await?;
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success() && said.matches("ok ").count() == 4, "{said}{wrong}");
    Ok(())
}

async fn workspace(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "network": "none" })).await?;
    let path = format!("/api/v1/agent/workspaces/{id}/mcp");
    all_clients(&server.api, &path, "bash", r#"{"command":"echo $((6 * 7)) > file; cat file"}"#, "42").await?;
    ensure!(server.api.bash(&id, "cat file").await? == "42\n");
    Ok(())
}

async fn gateway(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    host(&server.api, json!({ "name": "old", "cmd": ["fixture", "--only-legacy"] })).await?;
    for tool in ["fixture__echo", "old__echo"] {
        all_clients(&server.api, "/mcp", tool, r#"{"text":"hello there"}"#, "hello there").await?;
    }
    Ok(())
}
