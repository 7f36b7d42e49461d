//! An execution outlives everything but its sandbox: the client, the channel, a pause, the server.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Api, Case, Runtime, Server, api::WORKSPACES, engine, until};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("half_a_gigabyte_survives_every_cut", half_a_gigabyte_survives_every_cut)]
}

/// Writes 500 MB of lines over about a minute, and its own SHA-256 beside them, then exits with 42.
const WRITER: &str = r"
import hashlib, sys, time
out, total, sent, number = sys.stdout.buffer, 500_000_000, 0, 0
sha, started = hashlib.sha256(), time.monotonic()
while sent < total:
    block = b''.join(b'%015d\n' % n for n in range(number, number + 62500))
    number += 62500
    out.write(block); out.flush(); sha.update(block); sent += len(block)
    ahead = sent / total * 55 - (time.monotonic() - started)
    if ahead > 0: time.sleep(ahead)
open('/workspace/sum', 'w').write(sha.hexdigest())
sys.exit(42)
";

async fn half_a_gigabyte_survives_every_cut(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let workspace = format!("{WORKSPACES}/{id}");
    let write = json!({ "file_path": "writer.py", "content": WRITER });
    server.api.tool(&id, "write", write).await?.success()?;
    let start = json!({ "command": "python3 writer.py", "execution_id": "writer" });
    server.api.post(&format!("{workspace}/processes"), start).await?.success()?;

    let mut output = Output { path: format!("{workspace}/processes/writer/output"), sha: Sha256::new(), offset: 0 };

    // The client is cut.
    output.read(&server.api, 60_000_000).await?;
    // The channel is cut, from inside the container.
    let cut = "for c in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $c | grep -q 'emergent-guest connect' && \
        p=${c#/proc/} && kill -9 ${p%/cmdline}; done; true";
    let container = engine::container(&id);
    tokio::process::Command::new("docker").args(["exec", &container, "bash", "-c", cut]).status().await?;
    output.read(&server.api, 140_000_000).await?;
    // The workspace is paused.
    server.api.post(&format!("{workspace}/pause"), json!({})).await?.success()?;
    server.api.post(&format!("{workspace}/resume"), json!({})).await?.success()?;
    output.read(&server.api, 220_000_000).await?;
    // The server is killed.
    server.kill()?;
    server.restart(|_| {}).await?;
    output.read(&server.api, u64::MAX).await?;

    let ended = until("the writer ends", Duration::from_secs(60), || async {
        let process = server.api.get(&format!("{workspace}/processes/writer")).await?.success()?;
        Ok(if process["status"] == "ended" { Ok(process) } else { Err(process.to_string()) })
    })
    .await?;
    ensure!(ended["exit_code"] == 42, "{ended}");
    ensure!(output.offset == 500_000_000, "{} bytes", output.offset);
    let inside = server.api.bash(&id, "cat /workspace/sum").await?;
    let outside = hex::encode(output.sha.finalize());
    ensure!(inside == outside, "inside {inside}, outside {outside}");
    Ok(())
}

/// The output that has been read so far, as a sum.
struct Output {
    path: String,
    sha: Sha256,
    offset: u64,
}

impl Output {
    /// Reads on from where the last reader was cut off, until `enough` or the end.
    async fn read(&mut self, api: &Api, enough: u64) -> anyhow::Result<()> {
        let path = format!("{}?stream=stdout&offset={}&follow=true", self.path, self.offset);
        let response = api.request(Method::GET, &path).send().await?.error_for_status()?;
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.context("reading output")?;
            self.sha.update(&chunk);
            self.offset += u64::try_from(chunk.len())?;
            if self.offset >= enough {
                break;
            }
        }
        Ok(())
    }
}
