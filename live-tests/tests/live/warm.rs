//! The warm pool: a member that was made ahead of need becomes the workspace that was asked for, checked from inside.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Image, Runtime, Server, ServerOptions, api::WORKSPACES, until};
use futures::future::try_join_all;
use serde_json::{Value, json};

/// The time that a pool may take to be full, on a busy machine.
const FULL_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_hand_over_gives_what_was_asked_for", a_hand_over_gives_what_was_asked_for),
        Case::new("limits_are_changed_or_it_is_a_miss", limits_are_changed_or_it_is_a_miss),
        Case::new("another_network_is_a_miss_and_given", another_network_is_a_miss_and_given),
        Case::new("a_burst_drains_the_pool_and_it_is_made_good", a_burst_drains_the_pool_and_it_is_made_good),
        Case::new("a_changed_image_renews_the_pool", a_changed_image_renews_the_pool),
        Case::new("the_pool_goes_with_the_server", the_pool_goes_with_the_server),
        Case::new("a_killed_member_is_replaced", a_killed_member_is_replaced),
    ]
}

async fn pooled(runtime: Runtime, size: usize) -> anyhow::Result<Server> {
    let options = ServerOptions::on(runtime)
        .with("WORKSPACE_WARM_POOL_SIZE", size.to_string())
        .with("WORKSPACE_DEFAULT_MEMORY", "512M")
        .with("WORKSPACE_MAX_CONCURRENT", "50");
    let server = Server::start(options).await?;
    full(&server).await?;
    Ok(server)
}

async fn pool(server: &Server) -> anyhow::Result<Value> {
    Ok(server.api.get("/api/v1/agent/warm-pool").await?.success()?["items"][0].clone())
}

async fn full(server: &Server) -> anyhow::Result<Value> {
    until("the pool is full", FULL_WITHIN, || async {
        let pool = pool(server).await?;
        Ok(if pool["ready"] == pool["target"] && pool["making"] == 0 { Ok(pool) } else { Err(pool.to_string()) })
    })
    .await
}

/// Containers of the server, whether they are workspaces or members.
async fn containers(server: &Server) -> anyhow::Result<BTreeSet<String>> {
    let names = server.engine.resources_of_server(server.id()).await?;
    Ok(names.into_iter().filter_map(|name| name.strip_prefix("/emergent-").map(str::to_owned)).collect())
}

async fn create(server: &Server, body: Value) -> anyhow::Result<Value> {
    server.api.post(WORKSPACES, body).await?.success()
}

fn id(workspace: &Value) -> anyhow::Result<&str> {
    workspace["id"].as_str().context("no id")
}

async fn a_hand_over_gives_what_was_asked_for(runtime: Runtime) -> anyhow::Result<()> {
    let server = pooled(runtime, 2).await?;
    let members = containers(&server).await?;
    let secret = "given-at-the-hand-over";
    let request = json!({
        "name": "mine", "labels": { "team": "a" }, "environment": { "TOKEN": secret }, "allow_root": true,
        "expires_in_seconds": 3600,
    });
    let workspace = create(&server, request).await?;
    let id = id(&workspace)?;
    ensure!(workspace["warm"] == true && members.contains(id), "{workspace}");
    ensure!(workspace["name"] == "mine" && workspace["labels"]["team"] == "a", "{workspace}");
    ensure!(workspace["runtime"] == runtime.name() && workspace["expires_at"].is_string(), "{workspace}");

    let environ = "cat /proc/self/environ | tr '\\0' '\\n'";
    ensure!(server.api.bash(id, environ).await?.contains(&format!("TOKEN={secret}\n")));
    let root = json!({ "command": "id -u", "user": "root" });
    ensure!(server.api.tool(id, "bash", root).await?.success()?["stdout"] == "0\n");
    ensure!(memory_limit(&server, id, runtime).await? <= 512 << 20);

    // It is the workspace's for good, and nobody else's.
    server.api.post(&format!("{WORKSPACES}/{id}/stop"), json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(id, environ).await?.contains(&format!("TOKEN={secret}\n")));
    let other = create(&server, json!({})).await?;
    let other = other["id"].as_str().context("no id")?;
    ensure!(!server.api.bash(other, environ).await?.contains(secret));
    server.api.tool(other, "bash", json!({ "command": "id", "user": "root" })).await?.refusal(403)?;
    Ok(())
}

async fn memory_limit(server: &Server, id: &str, runtime: Runtime) -> anyhow::Result<u64> {
    let command = match runtime {
        Runtime::Runc => "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        // What has a kernel of its own is told by it.
        Runtime::Runsc | Runtime::Qemu => "awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo",
    };
    Ok(server.api.bash(id, command).await?.trim().parse()?)
}

async fn limits_are_changed_or_it_is_a_miss(runtime: Runtime) -> anyhow::Result<()> {
    let server = pooled(runtime, 1).await?;
    let limits = json!({ "resource_limits": { "cpu": 0.5, "memory": "256M", "pids": 200 } });
    let workspace = create(&server, limits).await?;
    let id = id(&workspace)?;
    let live = runtime == Runtime::Runc;
    ensure!(workspace["warm"] == live, "{workspace}");
    ensure!(memory_limit(&server, id, runtime).await? <= 256 << 20);
    if live {
        let cgroup = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max; \
                      cut -d' ' -f1 /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
        ensure!(server.api.bash(id, cgroup).await? == "200\n50000\n");
    } else {
        ensure!(pool(&server).await?["misses"] == json!({ "limits": 1 }));
    }
    Ok(())
}

async fn another_network_is_a_miss_and_given(runtime: Runtime) -> anyhow::Result<()> {
    let server = pooled(runtime, 1).await?;
    let interfaces = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v '^lo$' | wc -l";
    let offline = create(&server, json!({ "network": "none" })).await?;
    ensure!(offline["warm"] == false, "{offline}");
    ensure!(server.api.bash(id(&offline)?, interfaces).await?.trim() == "0");
    let online = create(&server, json!({})).await?;
    ensure!(online["warm"] == true, "{online}");
    ensure!(server.api.bash(id(&online)?, interfaces).await?.trim() != "0");
    ensure!(pool(&server).await?["misses"] == json!({ "network": 1 }));
    Ok(())
}

async fn a_burst_drains_the_pool_and_it_is_made_good(runtime: Runtime) -> anyhow::Result<()> {
    let server = pooled(runtime, 3).await?;
    let made = try_join_all((0..5).map(|_| create(&server, json!({})))).await?;
    let warm = made.iter().filter(|workspace| workspace["warm"] == true).count();
    ensure!(warm == 3, "{warm} of 5 were hand-overs");
    let ids = made.iter().map(id).collect::<anyhow::Result<BTreeSet<_>>>()?;
    ensure!(ids.len() == 5, "one sandbox became two workspaces");
    for id in &ids {
        server.api.bash(id, "true").await?;
    }
    let pool = full(&server).await?;
    ensure!(pool["hits"] == 3 && pool["misses"]["empty"] == 2, "{pool}");
    ensure!(containers(&server).await?.len() == 5 + 3);
    Ok(())
}

async fn a_changed_image_renews_the_pool(runtime: Runtime) -> anyhow::Result<()> {
    let image = Image::of_workspace(&format!("emergent-test/renewed-{}:1", runtime.name()))?;
    let options = ServerOptions::on(runtime)
        .with("WORKSPACE_WARM_POOL_SIZE", "2")
        .with("WORKSPACE_WARM_POOL_IMAGES", image.reference.as_str());
    let server = Server::start(options).await?;
    full(&server).await?;
    let before = containers(&server).await?;
    image.change()?;
    // Whatever takes a member has the pool look at its image.
    let taken = create(&server, json!({ "base_image": image.reference })).await?;
    let taken = id(&taken)?;
    until("the members are new", FULL_WITHIN, || async {
        let now = containers(&server).await?;
        let old = now.iter().filter(|id| before.contains(*id) && *id != taken).count();
        Ok(if old == 0 && now.len() == 3 { Ok(()) } else { Err(format!("{old} old of {}", now.len())) })
    })
    .await?;
    full(&server).await?;
    drop(server);
    Ok(())
}

async fn the_pool_goes_with_the_server(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = pooled(runtime, 2).await?;
    let workspace = create(&server, json!({})).await?;
    let workspace = id(&workspace)?.to_owned();
    full(&server).await?;
    server.terminate().await?;
    ensure!(containers(&server).await? == [workspace.clone()].into(), "members outlive an orderly end");

    // After a crash they are in the way of nobody.
    server.restart(|_| {}).await?;
    full(&server).await?;
    let before = containers(&server).await?;
    server.kill()?;
    server.restart(|_| {}).await?;
    full(&server).await?;
    until("the old members are gone", FULL_WITHIN, || async {
        let now = containers(&server).await?;
        let old = now.iter().filter(|id| before.contains(*id) && **id != workspace).count();
        Ok(if old == 0 && now.len() == 3 { Ok(()) } else { Err(format!("{now:?}")) })
    })
    .await?;
    server.api.bash(&workspace, "true").await.map(drop)
}

async fn a_killed_member_is_replaced(runtime: Runtime) -> anyhow::Result<()> {
    let server = pooled(runtime, 1).await?;
    let member = containers(&server).await?.pop_first().context("no member")?;
    server.engine.kill(&member).await?;
    until("another is in its place", FULL_WITHIN, || async {
        let now = containers(&server).await?;
        Ok(if now.len() == 1 && !now.contains(&member) { Ok(()) } else { Err(format!("{now:?}")) })
    })
    .await?;
    full(&server).await?;
    ensure!(create(&server, json!({})).await?["warm"] == true);
    Ok(())
}
