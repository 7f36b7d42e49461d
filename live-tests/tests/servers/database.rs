//! PostgreSQL that goes away, and comes back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use emergent_test_postgres::Cluster;
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("calls_go_on_while_the_database_is_away_and_all_recovers_when_it_is_back", away)]
}

async fn away(runtime: Runtime) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let options = ServerOptions::on(runtime).with("DATABASE_URL", cluster.database().await?);
    let server = Server::start(options).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "true").await?;
    cluster.stop()?;
    // Past the lease, and within the time for which a token is believed.
    let began = Instant::now();
    let mut slow = 0;
    while began.elapsed() < Duration::from_secs(45) {
        let asked = Instant::now();
        ensure!(server.api.bash(&id, "echo on").await? == "on\n");
        slow += u32::from(asked.elapsed() > Duration::from_secs(1));
    }
    ensure!(slow <= 5, "{slow} calls waited for the database");
    // Nobody could revoke the token here: after a minute it is believed no longer.
    until("the token is not believed any more", Duration::from_secs(60), || async {
        let reply = server.api.tool(&id, "bash", json!({ "command": "true" })).await?;
        Ok(if reply.status.as_u16() == 503 { Ok(()) } else { Err(reply.body.to_string()) })
    })
    .await?;
    server.api.post(WORKSPACES, json!({})).await?.refusal(503)?;
    server.api.get("/ready").await?.refusal(503)?;
    cluster.start_again()?;
    let recovered = until("creates go on", Duration::from_secs(30), || async {
        let reply = server.api.post(WORKSPACES, json!({})).await?;
        Ok(if reply.status.is_success() { Ok(reply.body) } else { Err(reply.body.to_string()) })
    });
    let new = recovered.await?["id"].as_str().unwrap_or_default().to_owned();
    for id in [&id, &new] {
        server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}
