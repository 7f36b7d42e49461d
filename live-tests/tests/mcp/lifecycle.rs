//! The life of a hosted server: registered, crashed, restarted, kept over our own restarts, and gone.

use std::time::{Duration, Instant};

use anyhow::ensure;
use emergent_live_tests::{
    Case, Runtime,
    mcp::{SERVERS, await_server, host, show, start, text, tool},
};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::state_in_memory_outlives_our_own_crash", state_in_memory_outlives_our_own_crash),
        Case::new("mcp::a_crash_fails_calls_at_once_and_is_mended_within_5_s", a_crash_is_mended),
        Case::new("mcp::a_killed_container_is_started_again_within_5_s", a_killed_container_is_started_again),
        Case::new("mcp::too_many_crashes_are_held_back", too_many_crashes_are_held_back),
        Case::new("mcp::policies_leave_what_has_ended", policies_leave_what_has_ended),
        Case::new("mcp::a_hanging_call_times_out_and_restarts_nothing", a_hanging_call_times_out),
        Case::new("mcp::volumes_outlive_changes_and_deletion_leaves_nothing", volumes_outlive_changes),
    ]
}

async fn state_in_memory_outlives_our_own_crash(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    ensure!(text(&server.api, "count", json!({})).await? == "2");
    server.kill()?;
    server.respawn(|_| {})?;
    server.await_ready().await?;
    let api = server.api.clone();
    await_server(&api, "it is adopted", Duration::from_secs(20), |server| server["state"] == "running").await?;
    ensure!(text(&api, "count", json!({})).await? == "3");
    ensure!(show(&api).await?["restarts"] == 0);
    Ok(())
}

async fn a_crash_is_mended(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    let api = server.api.clone();
    let hanging = tokio::spawn(async move { tool(&api, "slow", json!({ "ms": 9_000 })).await });
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    let began = Instant::now();
    tool(&server.api, "exit", json!({ "code": 3 })).await?.refusal(502)?;
    hanging.await??.refusal(502)?;
    ensure!(began.elapsed() < Duration::from_secs(3), "calls failed only after {:?}", began.elapsed());
    let seen = await_server(&server.api, "the crash is noted", Duration::from_secs(5), |server| {
        server["last_exit"]["exit_code"] == 3 && server["state"] == "running" && server["processes"] == 1
    });
    let seen = seen.await?;
    ensure!(seen["last_exit"]["stderr"].as_str().is_some_and(|text| text.contains("last words")), "{seen}");
    ensure!(seen["restarts"] == 1, "{seen}");
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    Ok(())
}

async fn a_killed_container_is_started_again(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let id = host(&server.api, json!({})).await?;
    let began = Instant::now();
    server.engine.kill(&id).await?;
    await_server(&server.api, "it runs again", Duration::from_secs(5), |server| {
        server["last_exit"]["reason"].is_string() && server["state"] == "running"
    })
    .await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    ensure!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    Ok(())
}

async fn too_many_crashes_are_held_back(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({})).await?;
    for crash in 1..=4 {
        tool(&server.api, "exit", json!({ "code": crash })).await?.refusal(502)?;
        await_server(&server.api, "the crash is noted", Duration::from_secs(10), |server| {
            let warm = server["state"] == "backing_off" || server["processes"] == 1;
            server["last_exit"]["exit_code"] == crash && warm
        })
        .await?;
    }
    let held = show(&server.api).await?;
    ensure!(held["state"] == "backing_off", "{held}");
    ensure!(held["message"].as_str().is_some_and(|message| message.contains("next try in ")), "{held}");
    tool(&server.api, "count", json!({})).await?.refusal(503)?;
    ensure!(server.log().contains("crashes too often"), "no warning in the log");
    await_server(&server.api, "it is started again", Duration::from_secs(10), |server| server["state"] == "running")
        .await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    Ok(())
}

async fn policies_leave_what_has_ended(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({ "restart_policy": "on-failure" })).await?;
    tool(&server.api, "exit", json!({ "code": 0 })).await?.refusal(502)?;
    let stopped = |server: &serde_json::Value| server["state"] == "stopped";
    await_server(&server.api, "a clean end is left", Duration::from_secs(5), stopped).await?;
    tool(&server.api, "count", json!({})).await?.refusal(409)?;
    let restarted = server.api.post(&format!("{SERVERS}/fixture/restart"), json!({})).await?.success()?;
    ensure!(restarted["state"] == "running", "{restarted}");
    ensure!(text(&server.api, "count", json!({})).await? == "1");

    let change = json!({ "restart_policy": "never" });
    let request = server.api.request(reqwest::Method::PATCH, &format!("{SERVERS}/fixture")).json(&change);
    let changed = server.api.send(request).await?.success()?;
    ensure!(changed["state"] == "running" && changed["restart_policy"] == "never", "{changed}");
    tool(&server.api, "exit", json!({ "code": 4 })).await?.refusal(502)?;
    await_server(&server.api, "a crash is left", Duration::from_secs(5), stopped).await?;
    Ok(())
}

async fn a_hanging_call_times_out(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    host(&server.api, json!({ "call_timeout_ms": 300 })).await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    for _ in 0..3 {
        let body = json!({ "method": "tools/call", "params": { "name": "hang", "arguments": {} } });
        server.api.post(&format!("{SERVERS}/fixture/call"), body).await?.refusal(504)?;
    }
    await_server(&server.api, "it is called unresponsive", Duration::from_secs(5), |server| {
        server["unresponsive"] == true && server["state"] == "running"
    })
    .await?;
    ensure!(text(&server.api, "count", json!({})).await? == "2");
    let after = show(&server.api).await?;
    ensure!(after["unresponsive"] == false && after["restarts"] == 0, "{after}");
    Ok(())
}

async fn volumes_outlive_changes(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let script = "cat /data/mark >&2; echo kept > /data/mark; exec fixture";
    let shell = json!(["sh", "-c", script]);
    let id = host(&server.api, json!({ "cmd": shell, "volumes": { "data": "/data" } })).await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    let change = json!({ "resource_limits": { "memory": "256M" } });
    let request = server.api.request(reqwest::Method::PATCH, &format!("{SERVERS}/fixture")).json(&change);
    let changed = server.api.send(request).await?.success()?;
    ensure!(changed["resource_limits"]["memory"] == 256 << 20, "{changed}");
    ensure!(text(&server.api, "count", json!({})).await? == "1");
    let logs = server.api.get(&format!("{SERVERS}/fixture/logs")).await?.success()?;
    ensure!(logs.to_string().contains("kept"), "the volume was lost: {logs}");
    server.api.delete(&format!("{SERVERS}/fixture")).await?.success()?;
    server.api.get(&format!("{SERVERS}/fixture")).await?.refusal(404)?;
    let left = server.engine.resources_of(&id).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
