//! The life of a workspace, as its user sees it and as the engine has it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, engine::PARTS, until};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_destroyed_workspace_leaves_nothing", a_destroyed_workspace_leaves_nothing),
        Case::new("files_survive_stop_and_processes_survive_pause", files_survive_stop_and_processes_survive_pause),
        Case::new("a_killed_container_is_noticed_and_mended", a_killed_container_is_noticed_and_mended),
        Case::new("a_call_is_told_how_its_workspace_ended", a_call_is_told_how_its_workspace_ended),
        Case::new("a_restarted_server_finds_its_workspaces", a_restarted_server_finds_its_workspaces),
        Case::new("the_limit_holds_under_parallel_creates", the_limit_holds_under_parallel_creates),
        Case::new("a_repeated_create_makes_one_workspace", a_repeated_create_makes_one_workspace),
        Case::new("a_missing_image_is_said_at_once", a_missing_image_is_said_at_once),
        Case::new("docker_may_go_away_and_come_back", docker_may_go_away_and_come_back),
        Case::new("another_project_sees_nothing", another_project_sees_nothing),
    ]
}

async fn a_destroyed_workspace_leaves_nothing(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "name": "short-lived", "labels": { "team": "a" } })).await?;

    let shown = server.api.workspace(&id).await?;
    ensure!(shown["runtime"] == runtime.name(), "{shown}");
    ensure!(shown["name"] == "short-lived" && shown["labels"]["team"] == "a", "{shown}");
    let listed = server.api.get(&format!("{WORKSPACES}?label=team:a")).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(|items| items.len() == 1), "{listed}");
    ensure!(server.engine.resources_of(&id).await?.len() == PARTS, "a container and its volumes were expected");

    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    ensure!(server.engine.resources_of(&id).await?.is_empty(), "something is left in the engine");
    server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    let listed = server.api.get(WORKSPACES).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "{listed}");
    Ok(())
}

async fn files_survive_stop_and_processes_survive_pause(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create_default().await?;

    api.bash(&id, "echo kept > /workspace/file && echo kept > ~/outside").await?;
    let path = format!("{WORKSPACES}/{id}");
    let stopped = api.post(&format!("{path}/stop"), json!({})).await?.success()?;
    ensure!(stopped["state"] == "stopped", "{stopped}");
    let refused = api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(409)?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains("resume")), "{refused}");
    api.post(&format!("{path}/resume"), json!({})).await?.success()?;
    ensure!(api.bash(&id, "cat /workspace/file ~/outside").await? == "kept\nkept\n");

    // Renamed into its place, so that nobody reads a file that is being written.
    let counter = "n=0; while true; do n=$((n+1)); echo $n > /workspace/n.new; mv n.new n; sleep 0.05; done";
    api.post(&format!("{path}/processes"), json!({ "command": counter, "execution_id": "counter" }))
        .await?
        .success()?;
    until("the counter counts", Duration::from_secs(10), || async {
        let read = api.tool(&id, "read", json!({ "file_path": "n" })).await?;
        Ok(if read.status.is_success() { Ok(()) } else { Err(read.body.to_string()) })
    })
    .await?;
    // Somebody waits for a command all the while, and is answered in the end.
    let waits = async {
        let woke = json!({ "command": "touch begun; while ! test -e go; do sleep 0.05; done; echo woke", "execution_id": "w" });
        api.tool(&id, "bash", woke).await?.success()
    };
    let pauses = async {
        until("the command has begun", Duration::from_secs(20), || async {
            let read = api.tool(&id, "read", json!({ "file_path": "begun" })).await?;
            Ok(if read.status.is_success() { Ok(()) } else { Err(read.body.to_string()) })
        })
        .await?;
        let paused = api.post(&format!("{path}/pause"), json!({})).await?.success()?;
        ensure!(paused["state"] == "paused", "{paused}");
        api.post(&format!("{path}/resume"), json!({})).await?.success()?;
        api.tool(&id, "write", json!({ "file_path": "go", "content": "" })).await?.success()
    };
    let (woke, _) = tokio::try_join!(waits, pauses)?;
    ensure!(woke["stdout"] == "woke\n" && woke["execution_id"] == "w", "{woke}");
    let before: u64 = api.bash(&id, "cat /workspace/n").await?.trim().parse()?;
    until("the counter goes on", Duration::from_secs(10), || async {
        let now: u64 = api.bash(&id, "cat /workspace/n").await?.trim().parse().unwrap_or(0);
        Ok(if now > before { Ok(()) } else { Err(format!("{now} after {before}")) })
    })
    .await
}

async fn a_killed_container_is_noticed_and_mended(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create_default().await?;
    api.bash(&id, "echo kept > file").await?;
    let running = json!({ "command": "sleep 1000", "execution_id": "sleeper" });
    api.post(&format!("{WORKSPACES}/{id}/processes"), running).await?.success()?;

    server.engine.kill(&id).await?;
    let broken = api.await_state(&id, "error", Duration::from_secs(10)).await?;
    ensure!(broken["error"]["reason"] == "killed", "{broken}");

    ensure!(api.bash(&id, "cat file").await? == "kept\n");
    ensure!(api.workspace(&id).await?["state"] == "ready");
    let lost = api.get(&format!("{WORKSPACES}/{id}/processes/sleeper")).await?.success()?;
    ensure!(lost["outcome"] == "lost" && lost["reason"].is_string(), "{lost}");
    Ok(())
}

async fn a_call_is_told_how_its_workspace_ended(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    for (end, told) in [("kill", "ended from outside"), ("stop", "was stopped"), ("destroy", "was destroyed")] {
        let id = api.create_default().await?;
        let path = format!("{WORKSPACES}/{id}");
        let waits = api.tool(&id, "bash", json!({ "command": "touch begun; sleep 1000", "execution_id": "w" }));
        let ends = async {
            until("the command has begun", Duration::from_secs(20), || async {
                let read = api.tool(&id, "read", json!({ "file_path": "begun" })).await?;
                Ok(if read.status.is_success() { Ok(()) } else { Err(read.body.to_string()) })
            })
            .await?;
            match end {
                "kill" => server.engine.kill(&id).await,
                "stop" => api.post(&format!("{path}/stop"), json!({})).await?.success().map(drop),
                _ => api.delete(&path).await?.refusal(204).map(drop),
            }
        };
        let (answer, ()) = tokio::try_join!(waits, ends)?;
        let refused = answer.refusal(409)?;
        ensure!(refused["type"] == "/problems/workspace-ended", "{end}: {refused}");
        ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains(told)), "{end}: {refused}");
    }
    Ok(())
}

async fn a_restarted_server_finds_its_workspaces(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let running = json!({ "command": "sleep 2; echo done", "execution_id": "slow" });
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), running).await?.success()?;

    server.kill()?;
    server.restart(|_| {}).await?;
    let result = server.api.get(&format!("{WORKSPACES}/{id}/processes/slow/wait")).await?.success()?;
    ensure!(result["stdout"] == "done\n" && result["exit_code"] == 0, "{result}");

    server.terminate().await?;
    server.restart(|_| {}).await?;
    ensure!(server.api.bash(&id, "echo again").await? == "again\n");
    Ok(())
}

async fn the_limit_holds_under_parallel_creates(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_MAX_CONCURRENT", "2")).await?;
    let creates = join_all((0..6).map(|_| server.api.post(WORKSPACES, json!({ "network": "none" })))).await;
    let creates = creates.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let made = creates.iter().filter(|reply| reply.status == 201).count();
    let refused = creates.iter().filter(|reply| reply.status == 429).count();
    ensure!((made, refused) == (2, 4), "{creates:?}");

    let request = server.api.request(Method::POST, WORKSPACES).json(&json!({}));
    let response = request.send().await.context("one create too many")?;
    ensure!(response.headers().contains_key("retry-after"), "429 without Retry-After");
    Ok(())
}

async fn a_repeated_create_makes_one_workspace(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let create = |body| {
        let request = server.api.request(Method::POST, WORKSPACES).header("Idempotency-Key", "once").json(&body);
        server.api.send(request)
    };
    let first = create(json!({ "name": "one" })).await?.success()?;
    let second = create(json!({ "name": "one" })).await?.success()?;
    ensure!(first["id"] == second["id"], "two workspaces came of one key");
    create(json!({ "name": "two" })).await?.refusal(422)?;
    Ok(())
}

async fn a_missing_image_is_said_at_once(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let started = Instant::now();
    let image = "localhost:1/nobody/nothing:1";
    let reply = server.api.post(WORKSPACES, json!({ "base_image": image })).await?;
    ensure!(started.elapsed() < Duration::from_secs(10), "the refusal took {:?}", started.elapsed());
    ensure!(reply.status.as_u16() >= 400, "{reply:?}");
    ensure!(reply.body["detail"].as_str().is_some_and(|detail| detail.contains(image)), "{reply:?}");
    server.await_nothing_left().await
}

async fn docker_may_go_away_and_come_back(runtime: Runtime) -> anyhow::Result<()> {
    let mut proxy = emergent_live_tests::proxy::DockerProxy::start().await?;
    let server = Server::start(ServerOptions::on(runtime).with("DOCKER_HOST", proxy.address())).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo kept > file").await?;

    proxy.cut().await?;
    let started = Instant::now();
    let refused = server.api.post(WORKSPACES, json!({})).await?;
    ensure!(refused.status.as_u16() == 503, "{refused:?}");
    ensure!(started.elapsed() < Duration::from_secs(10), "the refusal took {:?}", started.elapsed());
    let call = server.api.tool(&id, "read", json!({ "file_path": "file" })).await?;
    ensure!(call.status.is_server_error(), "{call:?}");

    proxy.mend().await?;
    until("the workspace answers again", Duration::from_secs(30), || async {
        let call = server.api.tool(&id, "read", json!({ "file_path": "file" })).await?;
        Ok(if call.status.is_success() { Ok(()) } else { Err(call.body.to_string()) })
    })
    .await?;
    server.api.create_default().await.map(drop)
}

async fn another_project_sees_nothing(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let token = json!({ "name": "stranger", "scopes": ["admin:read", "admin:write"], "project": "another" });
    let token = server.api.post("/api/v1/tokens", token).await?.success()?;
    let stranger = server.api.with_token(token["secret"].as_str().context("no secret")?);

    stranger.get(&format!("{WORKSPACES}/{id}")).await?.refusal(404)?;
    stranger.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(404)?;
    stranger.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.refusal(404)?;
    stranger.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(404)?;
    server.api.with_token("emt_wrong").get(WORKSPACES).await?.refusal(401)?;
    ensure!(server.api.bash(&id, "echo still here").await? == "still here\n");
    Ok(())
}
