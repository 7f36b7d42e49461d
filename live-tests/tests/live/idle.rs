//! Workspaces that nobody uses come to rest, and go on with the next call.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

/// The least that is taken, in minutes: 1.2 seconds.
const AFTER: f64 = 0.02;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("an_unused_workspace_is_stopped_and_a_call_finds_its_files", unused_is_stopped),
        Case::new("a_running_process_keeps_a_workspace_from_being_paused", a_process_keeps_it_running),
        Case::new("calls_around_the_moment_of_rest_never_fail", calls_never_fail),
        Case::new("a_changed_end_is_kept_over_a_restart", a_changed_end_is_kept_over_a_restart),
    ]
}

async fn unused_is_stopped(runtime: Runtime) -> anyhow::Result<()> {
    let options =
        ServerOptions::on(runtime).with("WORKSPACE_IDLE_ACTION", "stop").with("WORKSPACE_IDLE_AFTER_MIN", "0.02");
    let server = Server::start(options).await?;
    let api = &server.api;
    let id = api.create_default().await?;
    api.bash(&id, "echo kept > file").await?;
    for round in 0..2 {
        let resting = api.await_state(&id, "stopped", PATIENCE).await?;
        ensure!(resting["idle"]["resting"] == true && resting["idle"]["action"] == "stop", "{resting}");
        ensure!(api.bash(&id, "cat file").await? == "kept\n", "round {round}");
    }
    // What a person stops stays stopped.
    api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(409)?;
    Ok(())
}

async fn a_process_keeps_it_running(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let idle = json!({ "idle": { "action": "pause", "after_minutes": AFTER } });
    let (busy, unused) = (api.create(idle.clone()).await?, api.create(idle).await?);
    let processes = format!("{WORKSPACES}/{busy}/processes");
    let running = json!({ "command": "exec sleep 1000", "execution_id": "busy" });
    api.post(&processes, running).await?.success()?;
    // Twice, so that the time was surely up for the busy one, too.
    for _ in 0..2 {
        api.await_state(&unused, "paused", PATIENCE).await?;
        ensure!(api.workspace(&busy).await?["state"] == "ready", "it was paused under a running process");
        ensure!(api.bash(&unused, "echo awake").await? == "awake\n");
    }
    api.post(&format!("{processes}/busy/cancel"), json!({})).await?.success()?;
    api.await_state(&busy, "paused", PATIENCE).await?;
    let ended = api.get(&format!("{processes}/busy")).await?.success()?;
    ensure!(ended["status"] == "ended", "{ended}");
    Ok(())
}

async fn calls_never_fail(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    for action in ["pause", "stop"] {
        let idle = json!({ "idle": { "action": action, "after_minutes": AFTER } });
        let id = server.api.create(idle).await?;
        let callers = (0..8_u64).map(|caller| {
            let (api, id) = (server.api.clone(), id.clone());
            async move {
                for round in 0..5_u64 {
                    let reply = api.tool(&id, "bash", json!({ "command": "echo here" })).await?;
                    ensure!(reply.body["stdout"] == "here\n", "caller {caller}, round {round}: {reply:?}");
                    // Each a little apart from the others, all around the moment at which the workspace is to rest.
                    sleep(Duration::from_millis(1100 + caller * 40 + round * 15)).await;
                }
                Ok(())
            }
        });
        join_all(callers).await.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
        let rest = if action == "pause" { "paused" } else { "stopped" };
        server.api.await_state(&id, rest, PATIENCE).await?;
    }
    Ok(())
}

async fn a_changed_end_is_kept_over_a_restart(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let (brief, eternal) = (server.api.create_default().await?, server.api.create(json!({ "ttl_days": 1 })).await?);
    let patch = |id: &str, body| {
        let request = server.api.request(Method::PATCH, &format!("{WORKSPACES}/{id}")).json(&body);
        server.api.send(request)
    };
    patch(&brief, json!({ "expires_in_seconds": 0, "name": "brief", "labels": { "team": "a" } })).await?.success()?;
    let changed = patch(&eternal, json!({ "ttl_days": 0 })).await?.success()?;
    ensure!(changed["expires_at"].is_null(), "{changed}");
    let refused = patch(&eternal, json!({ "colour": "red" })).await?.refusal(400)?;
    ensure!(refused["errors"][0]["field"] == "colour", "{refused}");
    let refused = patch(&eternal, json!({ "idle": { "after_minutes": 0 } })).await?.refusal(422)?;
    ensure!(refused["errors"][0]["field"] == "idle.after_minutes", "{refused}");

    // A server looks for expired workspaces when it starts, and then at every interval.
    server.terminate().await?;
    server.restart(|_| {}).await?;
    let gone = server.api.await_state(&brief, "destroyed", PATIENCE).await?;
    ensure!(gone["destroy_reason"] == "expired" && gone["name"] == "brief" && gone["labels"]["team"] == "a", "{gone}");
    ensure!(server.api.workspace(&eternal).await?["state"] == "ready");
    until("the destruction is counted", PATIENCE, || async {
        let request = server.api.request(Method::GET, "/metrics");
        let metrics = request.send().await.context("asking for metrics")?.text().await.context("reading metrics")?;
        let counted = metrics.contains("emergent_workspaces_destroyed_total{reason=\"expired\"} 1");
        Ok(if counted { Ok(()) } else { Err("it is not among the metrics".to_owned()) })
    })
    .await
}
