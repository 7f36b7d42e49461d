//! The warm pool of a server that looks after its machines itself.

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Machines, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use serde_json::{Value, json};

use crate::network::at_a_site;

/// The time that a member may take to be there: the first one boots.
const FULL_WITHIN: Duration = Duration::from_secs(120);

pub(crate) fn cases() -> Vec<Case> {
    // Members may reach the internet, so that there have to be interfaces. The rules of the server's Docker networks
    // stay.
    let missing = emergent_test_netns::why_missing(&[("nft", "--version")]);
    vec![
        Case::new("a_warm_machine_is_handed_over_and_none_outlives_the_server", |_| {
            at_a_site("emergent_microvm", warm)
        })
        .skipped_because(missing),
    ]
}

async fn warm() -> anyhow::Result<()> {
    let options = ServerOptions::on(Runtime::Qemu)
        .with("WORKSPACE_WARM_POOL_SIZE", "1")
        .with("WORKSPACE_FIRECRACKER_NETWORK", "auto");
    let mut server = Server::start(options).await?;
    full(&server).await?;
    let member = running(&server)?.pop_first().context("no machine runs")?;
    let request = json!({ "name": "mine", "environment": { "GREETING": "here" }, "allow_root": true });
    let workspace = server.api.post(WORKSPACES, request).await?.success()?;
    ensure!(workspace["id"] == member.as_str() && workspace["warm"] == true, "{workspace}");
    ensure!(workspace["name"] == "mine" && workspace["runtime"] == "qemu", "{workspace}");
    ensure!(server.api.bash(&member, "echo $GREETING; id -u; hostname -I | wc -w").await? == "here\n1000\n1\n");
    let root = json!({ "command": "id -u", "user": "root" });
    ensure!(server.api.tool(&member, "bash", root).await?.success()?["stdout"] == "0\n");

    let pool = full(&server).await?;
    ensure!(pool["hits"] == 1 && pool["misses"] == json!({}), "{pool}");
    let next = running(&server)?.into_iter().find(|id| *id != member).context("the pool has no machine")?;
    // What begins with the same machine is another one.
    let other = server.api.post(WORKSPACES, json!({})).await?.success()?;
    ensure!(other["id"] == next.as_str() && other["warm"] == true, "{other}");
    let names = "hostname; cat /etc/machine-id; hostname -I";
    ensure!(server.api.bash(&member, names).await? != server.api.bash(&next, names).await?, "two are one");
    ensure!(!server.api.bash(&next, "env").await?.contains("GREETING"), "it has another's environment");
    let offline = server.api.post(WORKSPACES, json!({ "network": "none" })).await?.success()?;
    ensure!(offline["warm"] == false, "{offline}");
    ensure!(full(&server).await?["misses"] == json!({ "network": 1 }));
    let metrics = server.api.request(reqwest::Method::GET, "/metrics").send().await?.text().await?;
    let hits = metrics.lines().find(|line| line.starts_with("emergent_warm_pool_hits_total{"));
    ensure!(hits.is_some_and(|line| line.ends_with(" 2")), "{hits:?}");

    let offline = offline["id"].as_str().context("no id")?.to_owned();
    let workspaces = BTreeSet::from([member, next, offline]);
    // The same files are another template, once they are built anew.
    let old = running(&server)?;
    let root = machines(&server)?.base().join("rootfs/default-rootfs.ext4");
    let (image, new) = (root.canonicalize()?, root.with_extension("new"));
    let copied = Command::new("cp").arg("--sparse=always").args([&image, &new]).status()?;
    ensure!(copied.success(), "the root could not be copied");
    std::fs::rename(new, &root)?;
    until("the member is another", FULL_WITHIN, || async {
        let now = running(&server)?;
        let changed = now.len() == old.len() && now != old && workspaces.iter().all(|id| now.contains(id));
        Ok(if changed { Ok(()) } else { Err(format!("{now:?}")) })
    })
    .await?;
    full(&server).await?;

    server.terminate().await?;
    ensure!(running(&server)? == workspaces, "a member outlives an orderly end, or a workspace does not");

    server.restart(|options| options.environment.retain(|(name, _)| name != "WORKSPACE_WARM_POOL_SIZE")).await?;
    for workspace in &workspaces {
        server.api.bash(workspace, "true").await?;
        server.api.delete(&format!("{WORKSPACES}/{workspace}")).await?.success()?;
    }
    ensure!(running(&server)?.is_empty() && machines(&server)?.names("sandboxes")?.is_empty(), "something is left");
    server.terminate().await
}

/// Waits until the pool is full.
async fn full(server: &Server) -> anyhow::Result<Value> {
    until("the pool is full", FULL_WITHIN, || async {
        let pool = server.api.get("/api/v1/agent/warm-pool").await?.success()?["items"][0].clone();
        Ok(if pool["ready"] == pool["target"] && pool["making"] == 0 { Ok(pool) } else { Err(pool.to_string()) })
    })
    .await
}

/// The machines that run: of workspaces, and of members.
fn running(server: &Server) -> anyhow::Result<BTreeSet<String>> {
    let machines = machines(server)?;
    Ok(machines.names("sandboxes")?.into_iter().filter(|id| machines.process(id).is_some()).collect())
}

fn machines(server: &Server) -> anyhow::Result<&Machines> {
    server.machines().context("the server runs no machines")
}
