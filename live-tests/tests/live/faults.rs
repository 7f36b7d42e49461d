//! A server killed with SIGKILL at each step of create, stop and destroy: nothing is orphaned, nothing alive is lost.
//!
//! The steps come from the step types themselves, so a step without a case cannot exist.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, engine::PARTS, until};
use emergent_types::{CreateStep, DestroyStep, StopStep};
use serde_json::{Value, json};

/// The time that a restarted server has to put things in order.
pub(crate) const IN_ORDER_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    let create = CreateStep::ALL.iter().map(|step| step.name()).map(|step| case(step, Operation::Create));
    let stop = StopStep::ALL.iter().map(|step| step.name()).map(|step| case(step, Operation::Stop));
    let destroy = DestroyStep::ALL.iter().map(|step| step.name()).map(|step| case(step, Operation::Destroy));
    create.chain(stop).chain(destroy).collect()
}

#[derive(Clone, Copy)]
enum Operation {
    Create,
    Stop,
    Destroy,
}

fn case(step: &'static str, operation: Operation) -> Case {
    Case::new(step, move |runtime| killed_at(runtime, step, operation))
}

async fn killed_at(runtime: Runtime, step: &'static str, operation: Operation) -> anyhow::Result<()> {
    let mut server = Server::start(ServerOptions::on(runtime)).await?;
    let bystander = server.api.create_default().await?;
    server.api.bash(&bystander, "echo kept > file").await?;
    let target = match operation {
        Operation::Create => None,
        Operation::Stop | Operation::Destroy => Some(server.api.create_default().await?),
    };
    if let Some(target) = &target {
        server.api.bash(target, "echo kept > file").await?;
    }

    server.terminate().await?;
    server.restart(|options| options.environment.push(("EMERGENT_FAULT".to_owned(), step.to_owned()))).await?;
    // The server dies in the middle of it, so there is no answer to look at.
    drop(match (operation, &target) {
        (Operation::Stop, Some(id)) => server.api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await,
        (Operation::Destroy, Some(id)) => server.api.delete(&format!("{WORKSPACES}/{id}")).await,
        _ => server.api.post(WORKSPACES, json!({ "name": "target" })).await,
    });
    server.await_exit(Duration::from_secs(30)).await.context("the fault point was not passed")?;
    server.restart(|options| options.environment.retain(|(name, _)| name != "EMERGENT_FAULT")).await?;

    until("rows and engine agree", IN_ORDER_WITHIN, || agreement(&server)).await?;
    ensure!(server.api.bash(&bystander, "cat file").await? == "kept\n", "the bystander was harmed");
    match operation {
        Operation::Create => {
            let listed = list(&server).await?;
            if let Some(survivor) = listed.iter().find(|row| row["name"] == "target" && row["state"] == "ready") {
                server.api.bash(survivor["id"].as_str().context("no id")?, "true").await?;
            }
        }
        Operation::Stop => {
            let id = target.as_deref().unwrap_or_default();
            server.api.await_state(id, "stopped", IN_ORDER_WITHIN).await?;
            server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
            ensure!(server.api.bash(id, "cat file").await? == "kept\n", "the stopped workspace lost its files");
        }
        Operation::Destroy => {
            let id = target.as_deref().unwrap_or_default();
            ensure!(server.engine.resources_of(id).await?.is_empty(), "the destroyed workspace left something");
        }
    }

    // What is left can be removed as usual.
    for row in list(&server).await? {
        server.api.delete(&format!("{WORKSPACES}/{}", row["id"].as_str().context("no id")?)).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}

pub(crate) async fn list(server: &Server) -> anyhow::Result<Vec<Value>> {
    let listed = server.api.get(&format!("{WORKSPACES}?limit=200")).await?.success()?;
    listed["items"].as_array().cloned().context("a list without items")
}

/// Checks that no row is between two states, that every live row has its container and volumes and every snapshot its
/// image and volumes, and that nothing else is in the engine.
pub(crate) async fn agreement(server: &Server) -> anyhow::Result<Result<(), String>> {
    let rows = list(server).await?;
    let mut engine = server.engine.resources_of_server(server.id()).await?;
    engine.retain(|name| !name.contains("emergent-probe"));
    engine.sort();
    let mut expected = Vec::new();
    for row in &rows {
        let (id, state) = (row["id"].as_str().context("no id")?, row["state"].as_str().context("no state")?);
        match state {
            "ready" | "stopped" => {
                let parts = server.engine.resources_of(id).await?;
                if parts.len() != PARTS {
                    return Ok(Err(format!("{id} is {state} with {parts:?}")));
                }
                expected.extend(parts);
            }
            "error" => expected.extend(server.engine.resources_of(id).await?),
            between => return Ok(Err(format!("{id} is {between}"))),
        }
    }
    let snapshots = server.api.get("/api/v1/agent/snapshots").await?.success()?;
    for row in snapshots["items"].as_array().context("a list without items")? {
        let (id, state) = (row["id"].as_str().context("no id")?, row["state"].as_str().context("no state")?);
        let parts = server.engine.resources_of_snapshot(id).await?;
        match state {
            "ready" if parts.len() == PARTS => expected.extend(parts),
            "error" if parts.is_empty() => {}
            between => return Ok(Err(format!("snapshot {id} is {between} with {parts:?}"))),
        }
    }
    // What forks are made from stays as long as they do.
    for row in rows.iter().filter(|row| row["snapshot_id"].is_string() && row["state"] == "ready") {
        let parts = server.engine.resources_of_snapshot(row["snapshot_id"].as_str().unwrap_or_default()).await?;
        expected.extend(parts.into_iter().filter(|part| part.ends_with(":latest")));
    }
    expected.sort();
    expected.dedup();
    Ok(if engine == expected { Ok(()) } else { Err(format!("engine {engine:?}, rows {expected:?}")) })
}
