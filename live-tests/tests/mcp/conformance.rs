//! The official conformance suite against a hosted server, through its container.

use anyhow::ensure;
use emergent_live_tests::{
    Case, Runtime, Server, ServerOptions,
    mcp::{SERVERS, host, image, script},
};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("mcp::the_official_conformance_suite_passes", the_suite_passes)]
}

/// Every edition of the suite, with nothing expected to fail. It opens many sessions and ends none.
async fn the_suite_passes(runtime: Runtime) -> anyhow::Result<()> {
    let options =
        ServerOptions::on(runtime).with("WORKSPACE_DEFAULT_IMAGE", image()?).with("EMERGENT_MCP_MAX_SESSIONS", "256");
    let server = Server::start(options).await?;
    let limits = json!({ "cpu": 2, "memory": "1G", "pids": 1024 });
    host(&server.api, json!({ "resource_limits": limits })).await?;
    let url = format!("{}{SERVERS}/fixture/mcp", server.api.base());
    let ran = script(&server.api, "mcp-conformance.sh", &[&url]).await?;
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{said}{wrong}");
    server.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    server.await_nothing_left().await
}
