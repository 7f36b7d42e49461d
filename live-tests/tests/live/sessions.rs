//! One agent holds a workspace at a time, lets it go, and another one goes on.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Api, Case, Runtime, Server, api::WORKSPACES, until};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("of_twenty_that_attach_at_once_one_does", of_twenty_that_attach_at_once_one_does),
        Case::new("one_agent_goes_on_where_another_left", one_agent_goes_on_where_another_left),
        Case::new("a_workspace_that_was_taken_over_is_closed_to_its_old_holder", taken_over),
        Case::new("attaching_wakes_a_workspace", attaching_wakes_a_workspace),
    ]
}

/// A call of a tool on behalf of a session.
async fn bash_for(
    api: &Api,
    id: &str,
    session: &str,
    command: &str,
) -> anyhow::Result<emergent_live_tests::api::Reply> {
    let request = api.request(Method::POST, &format!("{WORKSPACES}/{id}/bash")).header("Emergent-Session", session);
    api.send(request.json(&json!({ "command": command }))).await
}

async fn attach(api: &Api, id: &str, body: Value) -> anyhow::Result<String> {
    let session = api.post(&format!("{WORKSPACES}/{id}/attach"), body).await?.success()?;
    Ok(session["session_id"].as_str().context("a session without an id")?.to_owned())
}

async fn of_twenty_that_attach_at_once_one_does(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let path = format!("{WORKSPACES}/{id}/attach");
    let attaches = (0..20).map(|index| server.api.post(&path, json!({ "holder": format!("agent-{index}") })));
    let replies = join_all(attaches).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let holders: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 409).collect();
    ensure!((holders.len(), refused.len()) == (1, 19), "{replies:?}");
    let holder = holders.first().and_then(|reply| reply.body["holder"].as_str()).context("no holder")?;
    for refusal in refused {
        let detail = refusal.body["detail"].as_str().unwrap_or_default();
        ensure!(refusal.body["type"] == "/problems/workspace-attached", "{refusal:?}");
        ensure!(detail.contains(&format!("{holder:?}")) && detail.contains("take_over"), "{detail}");
    }
    ensure!(server.api.workspace(&id).await?["attached"]["holder"] == holder);
    Ok(())
}

async fn one_agent_goes_on_where_another_left(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create_default().await?;
    let path = format!("{WORKSPACES}/{id}");

    let first = attach(api, &id, json!({ "holder": "agent A" })).await?;
    bash_for(api, &id, &first, "echo from A > /workspace/note").await?.success()?;
    let running = json!({ "command": "sleep 1000", "execution_id": "left-running" });
    api.post(&format!("{path}/processes"), running).await?.success()?;
    for _ in 0..2 {
        let ended = api.post(&format!("{path}/detach"), json!({ "session_id": first })).await?.success()?;
        ensure!(ended["end_reason"] == "detached", "{ended}");
    }

    let second = attach(api, &id, json!({ "holder": "agent B" })).await?;
    let note = bash_for(api, &id, &second, "cat /workspace/note").await?.success()?;
    ensure!(note["stdout"] == "from A\n", "{note}");
    let process = api.get(&format!("{path}/processes/left-running")).await?.success()?;
    ensure!(process["status"] == "running", "{process}");
    let refused = bash_for(api, &id, &first, "true").await?.refusal(409)?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains("agent B")), "{refused}");

    api.delete(&path).await?.refusal(204)?;
    let history = api.get(&format!("{path}/sessions")).await?.success()?;
    let ended: Vec<_> = history["items"].as_array().context("no items")?.iter().map(|it| &it["end_reason"]).collect();
    ensure!(ended == ["destroyed", "detached"], "{history}");
    ensure!(api.workspace(&id).await?["destroy_reason"] == "requested");
    Ok(())
}

async fn taken_over(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create_default().await?;
    let first = attach(api, &id, json!({ "holder": "lost", "expires_in_seconds": 1 })).await?;
    until("its lease is over", Duration::from_secs(10), || async {
        let shown = api.workspace(&id).await?;
        Ok(if shown["attached"].is_null() { Ok(()) } else { Err(shown["attached"].to_string()) })
    })
    .await?;
    let refused = bash_for(api, &id, &first, "true").await?.refusal(409)?;
    ensure!(refused["type"] == "/problems/session-ended", "{refused}");

    let second = attach(api, &id, json!({ "holder": "second" })).await?;
    let third = attach(api, &id, json!({ "holder": "third", "take_over": true })).await?;
    bash_for(api, &id, &second, "true").await?.refusal(409)?;
    bash_for(api, &id, &third, "true").await?.success()?;
    ensure!(api.bash(&id, "echo operator").await? == "operator\n", "a call without a session is an operator's");
    bash_for(api, &id, "not-an-id", "true").await?.refusal(400)?;
    Ok(())
}

async fn attaching_wakes_a_workspace(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create_default().await?;
    api.bash(&id, "echo kept > file").await?;
    for rest in ["stop", "pause"] {
        api.post(&format!("{WORKSPACES}/{id}/{rest}"), json!({})).await?.success()?;
        let session = attach(api, &id, json!({ "holder": "agent" })).await?;
        let read = bash_for(api, &id, &session, "cat file").await?.success()?;
        ensure!(read["stdout"] == "kept\n", "{rest}: {read}");
        api.post(&format!("{WORKSPACES}/{id}/detach"), json!({ "session_id": session })).await?.success()?;
    }
    Ok(())
}
