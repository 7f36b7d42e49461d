//! Processes in the background, found again by their ids.

use std::time::Duration;

use anyhow::ensure;
use emergent_live_tests::{Case, Runtime, until};
use reqwest::Method;
use serde_json::json;

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("standard_input_and_signals_reach_a_process", standard_input_and_signals_reach_a_process),
        Case::new("an_execution_is_found_again_read_on_and_cancelled", found_again),
        Case::new("processes_and_their_output_outlive_a_pause", outlive_a_pause),
    ]
}

async fn standard_input_and_signals_reach_a_process(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let start = json!({ "command": "cat; echo end", "stdin": true, "execution_id": "cat" });
    subject.post("processes", start).await?.success()?;
    let input = subject.request(Method::POST, "processes/cat/stdin?close=true").body("typed\n");
    subject.send(input).await?.refusal(204)?;
    let result = subject.get("processes/cat/wait").await?.success()?;
    ensure!(result["stdout"] == "typed\nend\n", "{result}");

    let start = json!({ "command": "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done",
        "execution_id": "trap" });
    subject.post("processes", start).await?.success()?;
    said(&subject, "trap", 3).await?;
    subject.post("processes/trap/signal", json!({ "signal": "INT" })).await?.refusal(204)?;
    let result = subject.get("processes/trap/wait").await?.success()?;
    ensure!(result["exit_code"] == 3 && result["stdout"] == "up\ncaught\n", "{result}");
    Ok(())
}

async fn found_again(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let start = json!({ "argv": ["bash", "-c", "echo 0123456789; setsid sleep 4321 & wait"], "execution_id": "mine" });
    let started = subject.post("processes", start.clone()).await?.success()?;
    ensure!(started["execution_id"] == "mine" && started["status"] == "running", "{started}");
    // The same start again, as by a caller who never heard of it, starts nothing.
    let again = subject.post("processes", start).await?;
    ensure!(again.body["pid"] == started["pid"] || again.status.is_client_error(), "{again:?}");
    said(&subject, "mine", 11).await?;
    let rest = subject.request(Method::GET, "processes/mine/output?stream=stdout&offset=4").send().await?;
    ensure!(rest.error_for_status()?.text().await? == "456789\n");
    let listed = subject.get("processes").await?.success()?;
    let listed = listed["executions"].as_array().cloned().unwrap_or_default();
    ensure!(listed.iter().filter(|execution| execution["execution_id"] == "mine").count() == 1, "{listed:?}");

    let cancelled = subject.post("processes/mine/cancel", json!({})).await?.success()?;
    ensure!(cancelled["status"] == "ended" && cancelled["outcome"] == "cancelled", "{cancelled}");
    let left = subject.bash("cat /proc/[0-9]*/comm | sort").await?;
    ensure!(!left.lines().any(|name| name == "sleep"), "left running: {left}");
    subject.get("processes/another").await?.refusal(404)?;
    Ok(())
}

async fn outlive_a_pause(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let start = json!({ "command": "echo before; until [ -e go ]; do sleep 0.05; done; echo after",
        "execution_id": "waiter" });
    subject.post("processes", start).await?.success()?;
    said(&subject, "waiter", 7).await?;
    subject.bash("echo kept > ~/outside && echo kept > /dev/shm/memory").await?;
    for (operation, state) in [("pause", "paused"), ("resume", "ready")] {
        let workspace = subject.post(operation, json!({})).await?.success()?;
        ensure!(workspace["state"] == state, "{workspace}");
    }
    ensure!(subject.bash("cat ~/outside /dev/shm/memory && touch go").await? == "kept\nkept\n");
    let result = subject.get("processes/waiter/wait").await?.success()?;
    ensure!(result["stdout"] == "before\nafter\n" && result["exit_code"] == 0, "{result}");
    Ok(())
}

/// Waits until an execution has written so much.
async fn said(subject: &Subject, execution: &str, bytes: u64) -> anyhow::Result<()> {
    until("it has written", Duration::from_secs(20), || async {
        let process = subject.get(&format!("processes/{execution}")).await?.success()?;
        Ok(if process["stdout_bytes"] == bytes { Ok(()) } else { Err(process.to_string()) })
    })
    .await
}
