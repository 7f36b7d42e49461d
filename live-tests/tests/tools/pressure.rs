//! Loads that a workspace does not bear: it refuses them, and works again.

use anyhow::ensure;
use emergent_live_tests::{Case, Runtime};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_thousand_calls_at_once_are_answered", a_thousand_calls_at_once_are_answered),
        Case::new("a_fork_bomb_ends_with_its_execution", a_fork_bomb_ends_with_its_execution),
        Case::new("out_of_memory_is_said_and_survived", out_of_memory_is_said_and_survived),
        Case::new("root_ending_the_sandbox_is_survived", root_ending_the_sandbox_is_survived),
    ]
}

/// Forks until that is refused, and prints the number of forks.
const FORKS: &str = r"
import os, signal
forks = []
try:
    while len(forks) < 1000:
        fork = os.fork()
        if fork == 0: signal.pause()
        forks.append(fork)
except OSError: pass
print(len(forks))
for fork in forks: os.kill(fork, signal.SIGKILL)
";

async fn a_thousand_calls_at_once_are_answered(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    subject.bash("echo text > file").await?;
    let calls = (0..1000).map(|_| subject.tool("read", json!({ "file_path": "file" })));
    for reply in join_all(calls).await {
        ensure!(reply?.success()?["content"].as_str().is_some_and(|content| content.trim_end() == "1: text"));
    }
    Ok(())
}

async fn a_fork_bomb_ends_with_its_execution(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::with(runtime, json!({ "resource_limits": { "pids": 256 } })).await?;
    subject.bash("echo kept > file").await?;
    let most: u32 = subject.bash(&format!("python3 -c '{FORKS}'")).await?.trim().parse()?;
    ensure!((100..=256).contains(&most), "{most} processes");
    let bomb = json!({ "command": "bomb() { bomb | bomb & }; bomb; sleep 2", "timeout_ms": 4000 });
    drop(subject.tool("bash", bomb).await?);
    subject.prints_again("cat file", "kept\n").await
}

async fn out_of_memory_is_said_and_survived(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::with(runtime, json!({ "resource_limits": { "memory": "256M" } })).await?;
    subject.bash("echo kept > file").await?;
    let hungry = json!({ "execution_id": "hungry", "command": "python3 -c 'x = bytearray(1 << 30)'" });
    let reply = subject.tool("bash", hungry).await?;
    // Where there is a kernel of Linux it ends the process; gVisor ends the whole sandbox. Either way it is said.
    let said = reply.body["exit_code"].as_i64().is_some_and(|code| code != 0)
        || reply.body["outcome"] == "lost"
        || reply.body["type"] == "/problems/workspace-ended";
    ensure!(said, "{reply:?}");
    subject.prints_again("cat file", "kept\n").await?;
    let hungry = subject.send(subject.request(Method::GET, "processes/hungry")).await?.body;
    let is_told = hungry["outcome"] != "lost"
        || hungry["reason"].as_str().is_some_and(|reason| reason.contains("ran out of memory"));
    ensure!(is_told, "{hungry}");
    Ok(())
}

async fn root_ending_the_sandbox_is_survived(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::with(runtime, json!({ "allow_root": true })).await?;
    subject.bash("echo kept > file").await?;
    drop(subject.tool("bash", json!({ "command": "kill -9 1; kill -9 -1", "user": "root" })).await?);
    subject.prints_again("cat file", "kept\n").await
}
