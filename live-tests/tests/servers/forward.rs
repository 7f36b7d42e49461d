//! Requests for a workspace that another server drives.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use futures::StreamExt as _;
use reqwest::{Body, Method};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::two;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("tools_streams_and_files_are_passed_on_to_the_server_that_has_the_workspace", everything),
        Case::new("a_server_without_an_address_is_named_instead", unreachable),
        Case::new("what_is_open_by_a_token_ends_with_it_on_every_server", revoked),
    ]
}

async fn everything(runtime: Runtime) -> anyhow::Result<()> {
    let [first, second] = two(runtime).await?;
    let id = first.api.create_default().await?;
    ensure!(second.api.bash(&id, "echo hello").await? == "hello\n");
    ensure!(second.api.workspace(&id).await?["state"] == "ready");
    second.api.tool(&id, "read", json!({ "file_path": "/nowhere" })).await?.refusal(404)?;

    // A stream comes as it is made, not when it is whole.
    let command = json!({ "command": "echo first; sleep 3; echo last" });
    let began = Instant::now();
    let request = second.api.request(Method::POST, &format!("{WORKSPACES}/{id}/bash?stream=true")).json(&command);
    let answer = request.send().await?.error_for_status()?;
    ensure!(answer.headers()["content-type"].to_str()?.starts_with("text/event-stream"));
    let mut events = answer.bytes_stream();
    let mut text = String::new();
    let mut first_after = None;
    while let Some(chunk) = events.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk?));
        if text.contains("first") {
            first_after.get_or_insert(began.elapsed());
        }
    }
    let first_after = first_after.context("no output")?;
    ensure!(first_after < Duration::from_secs(2) && text.contains("last"), "{first_after:?}: {text}");

    // Files of any size, streamed both ways.
    let content = (0..8_u32 << 20).map(|byte| (byte % 251).to_le_bytes()[0]).collect::<Vec<_>>();
    let path = format!("{WORKSPACES}/{id}/files/content?path=/workspace/big");
    let chunks = content.chunks(1 << 16).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let upload = Body::wrap_stream(futures::stream::iter(chunks));
    second.api.send(second.api.request(Method::PUT, &path).body(upload)).await?.success()?;
    let download = second.api.request(Method::GET, &path).send().await?.error_for_status()?;
    ensure!(download.content_length() == Some(content.len() as u64), "the length is lost");
    ensure!(Sha256::digest(download.bytes().await?) == Sha256::digest(&content), "the contents differ");

    // One hop at most, whoever says that there has been one.
    let hop = second.api.request(Method::POST, &format!("{WORKSPACES}/{id}/bash")).json(&command);
    let refused = second.api.send(hop.header("x-emergent-forwarded-by", "somebody")).await?.refusal(421)?;
    ensure!(refused["type"] == "/problems/workspace-elsewhere", "{refused}");
    // Where it is, is told to those alone who may see it.
    let stranger = second.api.with_token("emt_0000000000000000000000000000000000000000000");
    stranger.tool(&id, "bash", command).await?.refusal(401)?;
    second.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn revoked(runtime: Runtime) -> anyhow::Result<()> {
    let [first, second] = two(runtime).await?;
    let id = first.api.create_default().await?;
    let path = format!("{WORKSPACES}/{id}");
    let body = json!({ "name": "agent", "scopes": ["admin:read", "admin:write"] });
    let made = first.api.post("/api/v1/tokens", body).await?.success()?;
    let secret = made["secret"].as_str().context("no secret")?;
    let (here, there) = (first.api.with_token(secret), second.api.with_token(secret));

    let endless = json!({ "command": "while true; do echo on; sleep 0.1; done", "execution_id": "endless" });
    first.api.post(&format!("{path}/processes"), endless.clone()).await?.success()?;
    let follow = format!("{path}/processes/endless/output?follow=true");
    let command = json!({ "command": "while true; do echo on; sleep 0.1; done", "timeout_ms": 600_000 });
    let mut streams = Vec::new();
    for api in [&here, &there] {
        let bash = api.request(Method::POST, &format!("{path}/bash?stream=true")).json(&command);
        for request in [bash, api.request(Method::GET, &follow)] {
            let mut stream = request.send().await?.error_for_status()?.bytes_stream();
            stream.next().await.context("nothing came")??;
            streams.push(stream);
        }
    }
    let upload =
        Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>("some")]).chain(futures::stream::pending()));
    let upload = there.request(Method::PUT, &format!("{path}/files/content?path=half")).body(upload);
    let upload = tokio::spawn(upload.send());
    let waits = here.request(Method::POST, &format!("{path}/bash")).json(&command);
    let waits = tokio::spawn(waits.send());
    // Both are under way: the file is being written, and the command runs.
    until("the calls are under way", Duration::from_secs(30), || async {
        let running = first.api.get(&format!("{path}/processes")).await?.success()?;
        let running = running["executions"].as_array().map_or(0, Vec::len);
        Ok(if running == 4 { Ok(()) } else { Err(format!("{running} commands")) })
    })
    .await?;

    let token = made["token"]["id"].as_str().context("no id")?;
    second.api.delete(&format!("/api/v1/tokens/{token}")).await?.refusal(204)?;
    let ends = futures::future::join_all(streams.into_iter().map(|stream| async move {
        let chunks: Vec<_> = stream.collect().await;
        let failed = chunks.iter().any(Result::is_err);
        let text: Vec<_> = chunks.into_iter().flatten().flatten().collect();
        (failed, String::from_utf8_lossy(&text).into_owned())
    }));
    let ends = tokio::time::timeout(Duration::from_secs(30), ends).await.context("a stream goes on")?;
    for (index, (failed, text)) in ends.iter().enumerate() {
        let is_events = index % 2 == 0;
        ensure!(*failed != is_events, "stream {index}: {failed} {text}");
        ensure!(!is_events || text.contains("event: error"), "{text}");
    }
    for call in [upload, waits] {
        let ended = tokio::time::timeout(Duration::from_secs(30), call).await.context("a call goes on")??;
        // Whoever still sends may find the connection closed before the answer.
        ensure!(ended.is_err() || ended.is_ok_and(|answer| answer.status() == 401), "a call was answered");
    }
    for api in [&here, &there] {
        api.get(&path).await?.refusal(401)?;
    }
    // The commands are durable, and what was half there is not there.
    let running = first.api.get(&format!("{path}/processes/endless")).await?.success()?;
    ensure!(running["status"] == "running", "{running}");
    first.api.tool(&id, "read", json!({ "file_path": "half" })).await?.refusal(404)?;
    first.api.delete(&path).await?.refusal(204)?;
    first.await_nothing_left().await
}

async fn unreachable(runtime: Runtime) -> anyhow::Result<()> {
    let [first, _] = two(runtime).await?;
    let shy = Server::start(ServerOptions::beside(&first, false)).await?;
    let id = shy.api.create_default().await?;
    let refused = first.api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(421)?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains("EMERGENT_ADVERTISE_URL"), "{detail}");
    shy.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    shy.await_nothing_left().await
}
