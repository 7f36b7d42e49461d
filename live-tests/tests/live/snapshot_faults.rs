//! A server killed with SIGKILL at each step of a snapshot, a fork and a create from a snapshot: the copied workspace
//! goes on, and nothing is left half-made.
//!
//! The steps come from the step types themselves, so a step without a case cannot exist.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use emergent_types::{CreateStep, SnapshotStep};
use serde_json::json;

use crate::faults::{IN_ORDER_WITHIN, agreement, list};

const SNAPSHOTS: &str = "/api/v1/agent/snapshots";

#[derive(Clone, Copy)]
enum Operation {
    Snapshot,
    Fork,
    CreateFrom,
}

pub(crate) fn cases() -> Vec<Case> {
    let snapshot = SnapshotStep::ALL.iter().map(|step| case(step.name(), Operation::Snapshot));
    let fork = SnapshotStep::ALL.iter().map(|step| case(step.name(), Operation::Fork));
    let create = CreateStep::ALL.iter().map(|step| case(step.name(), Operation::CreateFrom));
    snapshot.chain(fork).chain(create).collect()
}

fn case(step: &'static str, operation: Operation) -> Case {
    let of = match operation {
        Operation::Snapshot => "of a snapshot",
        Operation::Fork => "of a fork",
        Operation::CreateFrom => "from a snapshot",
    };
    Case::new(format!("{step} {of}"), move |runtime| killed_at(runtime, step, operation))
}

async fn killed_at(runtime: Runtime, step: &'static str, operation: Operation) -> anyhow::Result<()> {
    let mut server = Server::start(ServerOptions::on(runtime)).await?;
    let source = server.api.create(json!({ "name": "source" })).await?;
    server.api.bash(&source, "echo kept > file; echo kept > ~/outside").await?;
    let basis = match operation {
        Operation::CreateFrom => {
            let taken = server.api.post(&format!("{WORKSPACES}/{source}/snapshots"), json!({})).await?.success()?;
            Some(taken["id"].as_str().context("no id")?.to_owned())
        }
        Operation::Snapshot | Operation::Fork => None,
    };

    server.terminate().await?;
    server.restart(|options| options.environment.push(("EMERGENT_FAULT".to_owned(), step.to_owned()))).await?;
    // The server dies in the middle of it, so there is no answer to look at.
    drop(match (operation, &basis) {
        (Operation::Snapshot, _) => server.api.post(&format!("{WORKSPACES}/{source}/snapshots"), json!({})).await,
        (Operation::Fork, _) => server.api.post(&format!("{WORKSPACES}/{source}/fork"), json!({ "count": 2 })).await,
        (Operation::CreateFrom, basis) => server.api.post(WORKSPACES, json!({ "snapshot_id": basis })).await,
    });
    server.await_exit(Duration::from_secs(30)).await.context("the fault point was not passed")?;
    server.restart(|options| options.environment.retain(|(name, _)| name != "EMERGENT_FAULT")).await?;

    until("rows and engine agree", IN_ORDER_WITHIN, || agreement(&server)).await?;
    let shown = server.api.workspace(&source).await?;
    ensure!(shown["state"] == "ready", "the copied workspace was harmed: {shown}");
    ensure!(server.api.bash(&source, "cat file ~/outside").await? == "kept\nkept\n", "its files were harmed");
    for row in list(&server).await?.iter().filter(|row| row["snapshot_id"].is_string() && row["state"] == "ready") {
        let id = row["id"].as_str().context("no id")?;
        ensure!(server.api.bash(id, "cat file ~/outside").await? == "kept\nkept\n", "a copy is not whole");
    }
    let listed = server.api.get(SNAPSHOTS).await?.success()?;
    let snapshots = listed["items"].as_array().context("no items")?;
    if let Some(ready) = snapshots.iter().find(|row| row["state"] == "ready") {
        let copy = server.api.create(json!({ "snapshot_id": ready["id"] })).await?;
        ensure!(server.api.bash(&copy, "cat file ~/outside").await? == "kept\nkept\n", "the snapshot is not whole");
    }

    // What is left can be removed as usual.
    for row in snapshots {
        let id = row["id"].as_str().context("no id")?;
        server.api.delete(&format!("{SNAPSHOTS}/{id}")).await?.refusal(204)?;
    }
    for row in list(&server).await? {
        server.api.delete(&format!("{WORKSPACES}/{}", row["id"].as_str().context("no id")?)).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}
