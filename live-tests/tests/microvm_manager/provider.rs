//! Workspaces of the server as microVMs, behind a manager elsewhere.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Manager, Runtime, Server, ServerOptions, api::WORKSPACES};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("a_workspace_of_the_server_is_a_microvm_with_the_same_tools", |_| workspace())]
}

async fn workspace() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let options = ServerOptions::on(Runtime::Runc)
        .with("WORKSPACE_FIRECRACKER_URL", manager.url())
        .with("WORKSPACE_DEFAULT_MEMORY", "256M")
        .with("WORKSPACE_DEFAULT_DISK", "256M")
        .with("WORKSPACE_DEFAULT_CPU", "1");
    let server = Server::start(options).await?;
    let api = &server.api;
    let id = api.create(json!({ "provider": "firecracker", "network": "none" })).await?;
    let workspace = api.get(&format!("{WORKSPACES}/{id}")).await?.success()?;
    let emulated = workspace["warnings"].to_string().contains("emulated");
    let expected = if emulated { "container" } else { "hardware" };
    ensure!(workspace["isolation"] == expected && workspace["runtime"] == "qemu", "{workspace}");

    let tool = async |name: &str, body: Value| api.tool(&id, name, body).await?.success();
    tool("write", json!({ "file_path": "a.txt", "content": "one\ntwo\n" })).await?;
    tool("edit", json!({ "file_path": "a.txt", "old_string": "one", "new_string": "1" })).await?;
    ensure!(tool("read", json!({ "file_path": "a.txt" })).await?["content"] == "1: 1\n2: two");
    ensure!(tool("grep", json!({ "pattern": "two" })).await?["matches"][0]["line_number"] == 2);
    ensure!(tool("glob", json!({ "pattern": "*.txt" })).await?["files"] == json!(["/workspace/a.txt"]));
    let ran = tool("bash", json!({ "command": "echo kept > /dev/shm/memory; echo oops >&2; exit 7" })).await?;
    ensure!(ran["exit_code"] == 7 && ran["stderr"] == "oops\n", "{ran}");
    let sized = tool("bash", json!({ "command": "df -BM --output=size /workspace | tail -n 1 | tr -dc 0-9" })).await?;
    let size: u64 = sized["stdout"].as_str().context("it has an output")?.parse()?;
    ensure!((192..=256).contains(&size), "a disk of 256 MiB has {size}");

    api.post(&format!("{WORKSPACES}/{id}/pause"), json!({})).await?.success()?;
    ensure!(manager.machine(&id).is_none(), "a paused workspace has a machine");
    api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    ensure!(tool("bash", json!({ "command": "cat /dev/shm/memory" })).await?["stdout"] == "kept\n");

    let taken = api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.success()?;
    let snapshot = taken["id"].as_str().context("a snapshot has an id")?;
    let body = json!({ "provider": "firecracker", "network": "none", "snapshot_id": snapshot });
    let other = api.create(body).await?;
    let read = api.tool(&other, "read", json!({ "file_path": "a.txt" })).await?.success()?;
    ensure!(read["content"] == "1: 1\n2: two", "{read}");
    for workspace in [&id, &other] {
        api.delete(&format!("{WORKSPACES}/{workspace}")).await?.success()?;
        ensure!(manager.machine(workspace).is_none(), "a machine outlives its workspace");
    }
    Ok(())
}
