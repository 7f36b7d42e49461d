//! A copy of a data directory does nothing to the original's workspaces, and a server leaves no container of its own.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_started_copy_of_a_data_directory_is_refused_and_harms_nothing", copied),
        Case::new("a_server_leaves_no_container_of_its_own", no_helpers_left),
    ]
}

async fn marked(server: &Server) -> anyhow::Result<(String, String)> {
    let id = server.api.create_default().await?;
    server.api.bash(&id, "echo kept > /workspace/mark").await?;
    let taken = server.api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.success()?;
    ensure!(taken["state"] == "ready", "{taken}");
    Ok((id, taken["id"].as_str().context("a snapshot without an id")?.to_owned()))
}

async fn copied(runtime: Runtime) -> anyhow::Result<()> {
    // Several servers on one PostgreSQL have an id of their own in the data directory; here the rows are copied, too.
    let mut server = Server::start(ServerOptions::on(runtime).with("DATABASE_URL", "")).await?;
    let copy = server.copy_data()?;
    let (id, snapshot) = marked(&server).await?;
    let options = ServerOptions::on(runtime).with("DATABASE_URL", "");
    let refused = |log: &str| log.contains("--take-over") && log.contains(&server.data_dir().display().to_string());
    let (succeeded, log) = Server::fails_in(&copy, &options).await?;
    ensure!(!succeeded && refused(&log), "{log}");
    ensure!(server.api.bash(&id, "cat /workspace/mark").await? == "kept\n", "the file is gone");

    // Neither does it start while the original is down.
    server.terminate().await?;
    let (succeeded, log) = Server::fails_in(&copy, &options).await?;
    ensure!(!succeeded && log.matches("--take-over").count() >= 2, "{log}");
    server.restart(|_| {}).await?;
    ensure!(server.api.bash(&id, "cat /workspace/mark").await? == "kept\n", "the file is gone");

    // As a server of its own it leaves everything to the original.
    let other = Server::start_in(copy, options, &["--new-identity"]).await?;
    ensure!(other.id() != server.id(), "{}", other.id());
    let listed = other.api.get(WORKSPACES).await?.success()?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "{listed}");
    other.api.create_default().await?;
    ensure!(server.api.bash(&id, "cat /workspace/mark").await? == "kept\n", "the file is gone");
    let made = server.api.create(json!({ "snapshot_id": snapshot })).await?;
    ensure!(server.api.bash(&made, "cat /workspace/mark").await? == "kept\n", "the snapshot is not whole");
    Ok(())
}

async fn no_helpers_left(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    // It may be probing the runtime at this very moment.
    server.terminate().await?;
    let left = server.engine.resources_of_server(server.id()).await?;
    ensure!(left.is_empty(), "after the end: {left:?}");
    server.restart(|_| {}).await?;
    server.kill()?;
    server.restart(|_| {}).await?;
    server.terminate().await?;
    let left = server.engine.resources_of_server(server.id()).await?;
    ensure!(left.is_empty(), "after a kill and another end: {left:?}");
    Ok(())
}
