//! Maintenance: a server that takes no new workspaces.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, api::WORKSPACES};
use serde_json::json;

use crate::two;

const DRAIN: &str = "/api/v1/admin/drain";

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("a_draining_server_keeps_its_workspaces_and_leaves_new_ones_to_others", drained)]
}

async fn drained(runtime: Runtime) -> anyhow::Result<()> {
    let [mut first, second] = two(runtime).await?;
    let old = first.api.create_default().await?;
    let view = first.api.post(DRAIN, json!({})).await?.success()?;
    ensure!(view["draining"] == true && view["this"] == true, "{view}");
    let ready = first.api.get("/ready").await?.refusal(503)?;
    ensure!(ready["detail"].as_str().is_some_and(|detail| detail.contains("draining")), "{ready}");

    ensure!(first.api.bash(&old, "echo on").await? == "on\n", "what it has does not go on");
    let new = first.api.create_default().await?;
    ensure!(!second.engine.resources_of(&new).await?.is_empty());
    let made_by = second.engine.resources_of_server(second.id()).await?;
    ensure!(made_by.iter().any(|name| name.contains(&new)), "the other server did not make it: {made_by:?}");

    // It stays so over a restart, and with nobody else to ask it says so.
    first.terminate().await?;
    first.respawn(|_| {})?;
    let servers = emergent_live_tests::until("both servers are seen", std::time::Duration::from_secs(30), || async {
        let listed = second.api.get("/api/v1/admin/servers").await?.success()?;
        let answers = first.api.get("/health").await.is_ok();
        Ok(if answers { Ok(listed) } else { Err(listed.to_string()) })
    });
    let draining =
        servers.await?["items"].as_array().context("no items")?.iter().filter(|it| it["draining"] == true).count();
    ensure!(draining == 1, "{draining} are draining");
    second.api.post(DRAIN, json!({})).await?.success()?;
    let refused = first.api.post(WORKSPACES, json!({})).await?.refusal(503)?;
    ensure!(refused["type"] == "/problems/server-draining", "{refused}");
    first.api.delete(DRAIN).await?.success()?;
    second.api.delete(DRAIN).await?.success()?;
    first.await_ready().await?;
    for id in [&old, &new] {
        first.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    first.await_nothing_left().await?;
    second.await_nothing_left().await
}
