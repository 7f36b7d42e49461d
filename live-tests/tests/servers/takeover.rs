//! A server that dies, or sleeps, and the one that takes its workspaces over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use emergent_types::CreateStep;
use futures::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{on_postgres, two};

/// A lease of 30 s, a look every 10 s, and time to spare.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_hundred_parallel_creates_over_two_servers_respect_the_limit", hundred_creates),
        Case::new("a_dead_servers_workspaces_go_on_with_another_and_it_does_not_fight_when_it_is_back", killed),
        Case::new("a_server_killed_at_any_step_of_a_create_is_cleaned_up_after_by_another", killed_at_each_step),
        Case::new("a_server_that_was_suspended_past_its_lease_lets_go_before_it_acts", suspended),
        Case::new("a_server_whose_id_is_live_elsewhere_does_not_start", copied),
    ]
}

async fn hundred_creates(runtime: Runtime) -> anyhow::Result<()> {
    const LIMIT: usize = 6;
    let options = on_postgres(runtime).await?.with("WORKSPACE_MAX_CONCURRENT", LIMIT.to_string());
    let first = Server::start(options).await?;
    let second = Server::start(ServerOptions::beside(&first, true)).await?;
    let creates = (0..100).map(|turn| {
        let api = if turn % 2 == 0 { &first.api } else { &second.api };
        api.post(WORKSPACES, json!({ "name": format!("number {turn}") }))
    });
    let mut made = Vec::new();
    for reply in join_all(creates).await {
        let reply = reply?;
        if reply.status.is_success() {
            made.push(reply.body["id"].as_str().context("no id")?.to_owned());
        } else {
            reply.refusal(429)?;
        }
    }
    ensure!(made.len() == LIMIT, "{} were let in", made.len());
    // Each server answers for the other's.
    for id in &made {
        second.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    first.await_nothing_left().await?;
    second.await_nothing_left().await
}

async fn killed(runtime: Runtime) -> anyhow::Result<()> {
    let [mut first, second] = two(runtime).await?;
    let (kept, doomed) = (first.api.create_default().await?, first.api.create_default().await?);
    first.api.bash(&kept, "echo kept > file; (sleep 1000 & echo $! > pid) >/dev/null 2>&1").await?;
    first.kill()?;
    let away = second.api.tool(&kept, "bash", json!({ "command": "true" })).await?.refusal(503)?;
    ensure!(away["type"] == "/problems/server-away", "{away}");
    await_taken_over(&second, &kept).await?;
    ensure!(second.api.bash(&kept, "cat file; kill -0 $(cat pid) && echo alive").await? == "kept\nalive\n");
    second.api.delete(&format!("{WORKSPACES}/{doomed}")).await?.refusal(204)?;
    ensure!(second.engine.resources_of(&doomed).await?.is_empty(), "the heir left something of it");

    first.restart(|_| {}).await?;
    ensure!(first.api.bash(&kept, "cat file").await? == "kept\n", "it is not passed on to the heir");
    ensure!(first.api.workspace(&kept).await?["state"] == "ready");
    ensure!(second.api.bash(&kept, "kill -0 $(cat pid) && echo alive").await? == "alive\n");
    first.api.delete(&format!("{WORKSPACES}/{kept}")).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn killed_at_each_step(runtime: Runtime) -> anyhow::Result<()> {
    let heir = Server::start(on_postgres(runtime).await?.with("WORKSPACE_MAX_CONCURRENT", "50")).await?;
    let bystander = heir.api.create_default().await?;
    let mut victims = Vec::new();
    for step in CreateStep::ALL {
        let options = ServerOptions::beside(&heir, true).with("EMERGENT_FAULT", step.name());
        let mut victim = Server::start(options).await?;
        // It dies in the midst of it, so that there may be no answer to look at.
        drop(victim.api.post(WORKSPACES, json!({ "name": step.name() })).await);
        let dead = victim.await_exit(Duration::from_secs(30)).await;
        dead.with_context(|| format!("{} was not passed", step.name()))?;
        victims.push(victim);
    }
    let settled = until("every workspace has an heir and is settled", TAKEN_OVER_WITHIN * 2, || async {
        let listed = heir.api.get(&format!("{WORKSPACES}?limit=200")).await?.success()?;
        let items = listed["items"].as_array().cloned().context("no items")?;
        let between = items.iter().find(|row| row["state"] == "creating");
        Ok(between.map_or(Ok(items.clone()), |row| Err(row.to_string())))
    });
    for row in settled.await? {
        let id = row["id"].as_str().context("no id")?;
        if row["state"] == "ready" {
            await_taken_over(&heir, id).await?;
        } else {
            ensure!(row["error"]["reason"] == "create_interrupted" || row["state"] == "error", "{row}");
        }
        heir.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    ensure!(heir.api.get(&format!("{WORKSPACES}/{bystander}")).await?.success()?["state"] == "destroyed");
    for victim in &victims {
        until("nothing of the dead is left", TAKEN_OVER_WITHIN * 2, || async {
            let mut left = victim.engine.resources_of_server(victim.id()).await?;
            // What a server asks the engine with while it starts is removed by its age, when another starts.
            left.retain(|name| !name.contains("emergent-probe"));
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await?;
    }
    heir.await_nothing_left().await
}

async fn suspended(runtime: Runtime) -> anyhow::Result<()> {
    let [first, second] = two(runtime).await?;
    let (kept, doomed) = (first.api.create_default().await?, first.api.create_default().await?);
    first.api.bash(&kept, "echo kept > file").await?;
    first.signal(Signal::STOP)?;
    let taken = async {
        await_taken_over(&second, &kept).await?;
        second.api.delete(&format!("{WORKSPACES}/{doomed}")).await?.refusal(204)
    };
    let taken = taken.await;
    first.signal(Signal::CONT)?;
    taken?;
    // The very first request finds that the lease is lost: it is passed on, and the heir stops the workspace.
    first.api.post(&format!("{WORKSPACES}/{kept}/stop"), json!({})).await?.success()?;
    ensure!(second.api.workspace(&kept).await?["state"] == "stopped");
    first.api.post(&format!("{WORKSPACES}/{kept}/resume"), json!({})).await?.success()?;
    ensure!(first.api.bash(&kept, "cat file").await? == "kept\n");
    ensure!(first.log().contains("another server has taken the workspace over"), "it did not let go");
    first.api.delete(&format!("{WORKSPACES}/{kept}")).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn copied(runtime: Runtime) -> anyhow::Result<()> {
    let first = Server::start(on_postgres(runtime).await?).await?;
    let mut second = Server::start(ServerOptions::beside(&first, true)).await?;
    second.terminate().await?;
    std::fs::copy(first.data_dir().join("server-id"), second.data_dir().join("server-id"))?;
    second.respawn(|_| {})?;
    second.await_exit(Duration::from_secs(20)).await?;
    // The engine tells who acts for the id, before the rows are asked.
    let holder = format!("the process with the data directory {}", first.data_dir().display());
    ensure!(second.log().contains("holds server") && second.log().contains(&holder), "{}", second.log());
    Ok(())
}

/// Waits until another server answers for a workspace.
async fn await_taken_over(heir: &Server, id: &str) -> anyhow::Result<Value> {
    let began = Instant::now();
    until("the workspace has an heir", TAKEN_OVER_WITHIN, || async {
        let reply = heir.api.tool(id, "bash", json!({ "command": "true" })).await?;
        if reply.status.is_success() {
            return Ok(Ok(reply.body));
        }
        ensure!(matches!(reply.status.as_u16(), 503 | 502), "{} {}", reply.status, reply.body);
        Ok(Err(format!("{} after {:?}", reply.body, began.elapsed())))
    })
    .await
}
