//! Hosted MCP servers of one installation: every server answers for them, and another one takes over a dead one's.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server, ServerOptions,
    mcp::{SERVERS, Session, host, image, show, text, tool},
    until,
};
use rustix::process::Signal;
use serde_json::json;

use crate::on_postgres;

/// A lease of 30 s, a look every 10 s, and time to spare.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);
const ENDPOINT: &str = "/api/v1/mcp/servers/fixture/mcp";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_hosted_mcp_server_is_reached_through_every_server", forwarded),
        Case::new("what_a_dead_server_hosted_goes_on_with_another_memory_and_sessions_too", killed),
        Case::new("a_server_that_was_suspended_lets_go_of_what_it_hosted", suspended),
    ]
}

async fn two(runtime: Runtime) -> anyhow::Result<[Server; 2]> {
    let first = Server::start(on_postgres(runtime).await?.with("WORKSPACE_DEFAULT_IMAGE", image()?)).await?;
    let second = Server::start(ServerOptions::beside(&first, true)).await?;
    Ok([first, second])
}

async fn forwarded(runtime: Runtime) -> anyhow::Result<()> {
    let [first, second] = two(runtime).await?;
    let id = host(&first.api, json!({})).await?;
    ensure!(text(&first.api, "count", json!({})).await? == "1");
    ensure!(text(&second.api, "count", json!({})).await? == "2");
    // A session that was begun through one goes on through the other, streams and all.
    let session = Session::open(&second.api, ENDPOINT).await?;
    ensure!(session.text("count", json!({})).await? == "1");
    ensure!(session.through(&first.api).text("count", json!({})).await? == "2");
    ensure!(session.text("slow", json!({ "ms": 300 })).await? == "at last");
    // The endpoint for all has what others host.
    let gateway = Session::open(&second.api, "/mcp").await?;
    ensure!(gateway.tools().await?.contains(&"fixture__count".to_owned()));
    ensure!(gateway.text("fixture__count", json!({})).await? == "1");

    ensure!(show(&second.api).await?["state"] == "running");
    second.api.get(&format!("{SERVERS}/fixture/logs")).await?.success()?;
    second.api.post(&format!("{SERVERS}/{id}/restart"), json!({})).await?.success()?;
    ensure!(text(&second.api, "count", json!({})).await? == "1");
    let hop = second.api.request(reqwest::Method::DELETE, &format!("{SERVERS}/fixture"));
    let refused = second.api.send(hop.header("x-emergent-forwarded-by", "somebody")).await?.refusal(421)?;
    ensure!(refused["type"] == "/problems/workspace-elsewhere", "{refused}");
    let stranger = second.api.with_token("emt_0000000000000000000000000000000000000000000");
    stranger.delete(&format!("{SERVERS}/fixture")).await?.refusal(401)?;
    second.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn killed(runtime: Runtime) -> anyhow::Result<()> {
    let [mut first, second] = two(runtime).await?;
    host(&first.api, json!({})).await?;
    ensure!(text(&first.api, "count", json!({})).await? == "1");
    let session = Session::open(&second.api, ENDPOINT).await?;
    ensure!(session.text("count", json!({})).await? == "1");
    first.kill()?;
    let away = tool(&second.api, "count", json!({})).await?.refusal(503)?;
    ensure!(away["type"] == "/problems/server-away", "{away}");
    await_taken_over(&second).await?;
    ensure!(session.text("count", json!({})).await? == "2", "the session did not go on");
    let count = text(&second.api, "count", json!({})).await?;
    ensure!(count.parse::<u32>()? > 1, "what it had in memory is lost: {count}");
    ensure!(show(&second.api).await?["restarts"] == 0);

    first.restart(|_| {}).await?;
    ensure!(session.through(&first.api).text("count", json!({})).await? == "3", "it is not passed on to the heir");
    first.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn suspended(runtime: Runtime) -> anyhow::Result<()> {
    let [first, second] = two(runtime).await?;
    host(&first.api, json!({})).await?;
    let before: u32 = text(&first.api, "count", json!({})).await?.parse()?;
    first.signal(Signal::STOP)?;
    let taken = await_taken_over(&second).await;
    first.signal(Signal::CONT)?;
    taken?;
    // The very first request finds that the lease is lost, and is passed on.
    let count: u32 = text(&first.api, "count", json!({})).await?.parse()?;
    ensure!(count > before, "{count} after {before}");
    until("it lets go", Duration::from_secs(20), || async {
        let said = first.log().contains("another server has taken the MCP server over");
        Ok(if said { Ok(()) } else { Err(first.log()) })
    })
    .await?;
    ensure!(text(&second.api, "count", json!({})).await?.parse::<u32>()? > count, "two fight over it");
    second.api.delete(&format!("{SERVERS}/fixture")).await?.refusal(204)?;
    first.api.get(&format!("{SERVERS}/fixture")).await?.refusal(404)?;
    first.await_nothing_left().await
}

/// Waits until another server answers for the hosted one.
async fn await_taken_over(heir: &Server) -> anyhow::Result<()> {
    until("the MCP server has an heir", TAKEN_OVER_WITHIN, || async {
        let reply = tool(&heir.api, "count", json!({})).await?;
        if reply.status.is_success() {
            return Ok(Ok(()));
        }
        ensure!(matches!(reply.status.as_u16(), 502 | 503), "{} {}", reply.status, reply.body);
        Ok(Err(reply.body.to_string()))
    })
    .await
    .context("it was not taken over")
}
