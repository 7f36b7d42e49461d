//! Our server killed with SIGKILL at each step of hosting: nothing is leaked, and the requested state is reached.
//!
//! The steps come from the step types themselves, so a step without a case cannot exist.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime,
    engine::PARTS,
    mcp::{SERVERS, await_server, host, show, start, text},
    until,
};
use emergent_mcp_hosting::HostStep;
use emergent_types::{CreateStep, DestroyStep};
use serde_json::json;

/// The time that a restarted server has to put things in order.
const IN_ORDER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    /// A start of our own server that finds the container ended.
    Start,
    Restart,
    Change,
    Delete,
}

pub(crate) fn cases() -> Vec<Case> {
    let create = CreateStep::ALL.iter().map(|step| (step.name(), Operation::Create));
    let delete = DestroyStep::ALL.iter().map(|step| (step.name(), Operation::Delete));
    let host = HostStep::ALL.iter().flat_map(|step| operations(*step).iter().map(|it| (step.name(), *it)));
    create.chain(delete).chain(host).map(|(step, operation)| case(step, operation)).collect()
}

/// The operations in which the server is killed at a step.
fn operations(step: HostStep) -> &'static [Operation] {
    match step {
        HostStep::ChangeRecorded | HostStep::SandboxDiscarded => &[Operation::Change],
        HostStep::ProcessesEnded => &[Operation::Restart, Operation::Change, Operation::Delete],
        HostStep::SandboxStopped => &[Operation::Restart],
        HostStep::SandboxStarted => &[Operation::Start, Operation::Restart],
        // A start of ours passes them for every server that there is.
        HostStep::EndpointOpened | HostStep::RunningRecorded => &[Operation::Create, Operation::Start],
        // Only where a registry of packages can be reached, which no case takes for granted.
        HostStep::PackageInstalled => &[],
    }
}

fn case(step: &'static str, operation: Operation) -> Case {
    let name = match operation {
        Operation::Create => format!("mcp::killed_in_create_at_{step}"),
        Operation::Start => format!("mcp::killed_in_start_at_{step}"),
        Operation::Restart => format!("mcp::killed_in_restart_at_{step}"),
        Operation::Change => format!("mcp::killed_in_change_at_{step}"),
        Operation::Delete => format!("mcp::killed_in_delete_at_{step}"),
    };
    Case::new(name, move |runtime| killed_at(runtime, step, operation))
}

async fn killed_at(runtime: Runtime, step: &'static str, operation: Operation) -> anyhow::Result<()> {
    let mut server = start(runtime).await?;
    let shell = json!(["sh", "-c", "echo kept >> /data/mark; exec fixture"]);
    let what = json!({ "cmd": shell, "volumes": { "data": "/data" } });
    let bystander = server.api.create_default().await?;
    let id = if operation == Operation::Create { None } else { Some(host(&server.api, what.clone()).await?) };

    server.terminate().await?;
    if let (Some(id), Operation::Start) = (&id, operation) {
        server.engine.kill(id).await?;
    }
    let fault = ("EMERGENT_FAULT".to_owned(), step.to_owned());
    if operation == Operation::Start {
        server.respawn(|options| options.environment.push(fault))?;
    } else {
        server.restart(|options| options.environment.push(fault)).await?;
        if id.is_some() {
            await_server(&server.api, "it is adopted", IN_ORDER_WITHIN, |it| it["state"] == "running").await?;
        }
    }
    // The server dies in the middle of it, so there is no answer to look at.
    let path = format!("{SERVERS}/fixture");
    match operation {
        Operation::Start => {}
        Operation::Create => {
            let mut body = json!({ "name": "fixture", "network": "none" });
            body["cmd"] = what["cmd"].clone();
            body["volumes"] = what["volumes"].clone();
            drop(server.api.post(SERVERS, body).await);
        }
        Operation::Restart => drop(server.api.post(&format!("{path}/restart"), json!({})).await),
        Operation::Change => {
            let change = json!({ "resource_limits": { "memory": "256M" } });
            drop(server.api.send(server.api.request(reqwest::Method::PATCH, &path).json(&change)).await);
        }
        Operation::Delete => drop(server.api.delete(&path).await),
    }
    server.await_exit(Duration::from_secs(60)).await.context("the fault point was not passed")?;
    server.restart(|options| options.environment.retain(|(name, _)| name != "EMERGENT_FAULT")).await?;

    if operation == Operation::Delete {
        let id = id.context("no server was hosted")?;
        until("it is gone", IN_ORDER_WITHIN, || async {
            let found = server.api.get(&path).await?.status;
            let left = server.engine.resources_of(&id).await?;
            Ok(if found == 404 && left.is_empty() { Ok(()) } else { Err(format!("{found}, {left:?}")) })
        })
        .await?;
    } else {
        await_server(&server.api, "it runs", IN_ORDER_WITHIN, |it| it["state"] == "running").await?;
        text(&server.api, "count", json!({})).await?;
        let shown = show(&server.api).await?;
        ensure!(operation != Operation::Change || shown["resource_limits"]["memory"] == 256 << 20, "{shown}");
        let id = shown["id"].as_str().context("no id")?;
        // The container, /workspace, what was handed over, and the volume of its own.
        let resources = server.engine.resources_of(id).await?;
        ensure!(resources.len() == PARTS + 1, "{resources:?}");
        server.api.delete(&path).await?.refusal(204)?;
        ensure!(server.engine.resources_of(id).await?.is_empty(), "the deleted server left something");
    }
    ensure!(server.api.bash(&bystander, "echo alive").await? == "alive\n", "the bystander was harmed");
    server.api.delete(&format!("/api/v1/agent/workspaces/{bystander}")).await?.refusal(204)?;
    server.await_nothing_left().await
}
