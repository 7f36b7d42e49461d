//! Hosted MCP servers: sequential echo calls, beside direct stdio and two other bridges, all in one run of one client.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{Row, Samples, Target};
use crate::{
    Runtime, Server, ServerOptions,
    mcp::{SERVERS, host, image, script},
};

/// The number of times that a hundred calls to each are measured.
const ROUNDS: &str = "10";
const DIRECT: &str = "direct stdio";
const BRIDGE: &str = "our bridge";

/// The rows, each by its name, the measured way and the one beside it; of direct stdio the difference is taken.
const ROWS: [(&str, &str, &str, Target); 4] = [
    ("MCP echo: our bridge, over direct stdio", BRIDGE, DIRECT, Target::OursAtMost(1.0)),
    ("MCP echo: hosted, over direct stdio", "hosted", DIRECT, Target::OursAtMost(1.0)),
    ("MCP echo: hosted, beside npm supergateway", "hosted", "npm supergateway, stateful", Target::AtMost(1.0)),
    ("MCP echo: hosted, beside PyPI mcp-proxy", "hosted", "PyPI mcp-proxy", Target::AtMost(1.0)),
];

/// Measures all rows; a row whose programs cannot be had says what is missing.
pub async fn rows() -> Vec<Row> {
    let runtime = Runtime::Runc;
    let measured = measure(runtime).await.map_err(|error| format!("{error:#}"));
    let row = |(name, ours, beside, target): (&'static str, &str, &str, Target)| {
        let pair = measured.as_ref().map_err(Clone::clone).and_then(|all| {
            let of = |name: &str| all.get(name).cloned().ok_or_else(|| format!("no figures of {name}"));
            let (ours, baseline) = (of(ours)?, of(beside)?);
            let ours = if beside == DIRECT { ours.above(baseline.percentile(50)) } else { ours };
            Ok((ours, Some(baseline)))
        });
        Row { name, runtime: runtime.name(), unit: "ms", target, measured: pair }
    };
    ROWS.into_iter().map(row).collect()
}

async fn measure(runtime: Runtime) -> anyhow::Result<HashMap<String, Samples>> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_DEFAULT_IMAGE", image()?)).await?;
    host(&server.api, json!({ "resource_limits": { "cpu": 2 } })).await?;
    let hosted = format!("hosted={}{SERVERS}/fixture/mcp", server.api.base());
    let ran = script(&server.api, "mcp-latency.sh", &[ROUNDS, &hosted]).await?;
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "mcp-latency.sh: {}", wrong.lines().last().unwrap_or("it said nothing"));
    let last = said.lines().last().context("mcp-latency.sh printed nothing")?;
    let all: HashMap<String, Vec<f64>> = serde_json::from_str(last).context("the figures of mcp-latency.sh")?;
    all.into_iter().map(|(name, samples)| Ok((name, Samples::new(samples)?))).collect()
}
