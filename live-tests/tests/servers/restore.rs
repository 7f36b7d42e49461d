//! Backup, restore, and upgrade.

use std::{fs, io::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, server::program, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_restored_backup_is_made_to_agree_with_what_docker_has", restored),
        Case::new("a_workspace_outlives_the_upgrade_of_the_server_and_its_guest", upgraded),
    ]
}

async fn restored(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let (kept, destroyed) = (server.api.create_default().await?, server.api.create_default().await?);
    server.api.bash(&kept, "echo kept > file").await?;
    let copy = server.data_dir().join("copy.sqlite");
    let backup = Command::new(program("emergent")?)
        .arg("backup")
        .arg(&copy)
        .arg("--data-dir")
        .arg(server.data_dir())
        .output()?;
    ensure!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    server.api.delete(&format!("{WORKSPACES}/{destroyed}")).await?.refusal(204)?;
    let newer = server.api.create_default().await?;

    server.terminate().await?;
    let rows = server.data_dir().join("emergent.sqlite");
    for beside in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{beside}", rows.display())).ok();
    }
    fs::rename(copy, &rows)?;
    server.restart(|_| {}).await?;
    // What was made before and is still there goes on; what is gone says so; what came later belongs to nobody.
    ensure!(server.api.bash(&kept, "cat file").await? == "kept\n");
    let lost = server.api.workspace(&destroyed).await?;
    ensure!(lost["error"]["reason"] == "engine_lost" || lost["state"] == "error", "{lost}");
    ensure!(server.api.get(&format!("{WORKSPACES}/{newer}")).await?.status == 404);
    until("what came after the backup is removed", Duration::from_secs(180), || async {
        let left = server.engine.resources_of(&newer).await?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    for id in [&kept, &destroyed] {
        server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}

async fn upgraded(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let old = server.api.create_default().await?;
    server.api.bash(&old, "echo kept > file; (sleep 1000 & echo $! > pid) >/dev/null 2>&1").await?;
    server.terminate().await?;
    // Another build of the guest: what follows the program in its file is not read, and makes it another file.
    let guest = server.data_dir().join("newer-guest");
    fs::copy(program("emergent-guest")?, &guest)?;
    fs::OpenOptions::new().append(true).open(&guest)?.write_all(b"another build")?;
    let path = guest.to_str().context("a path of text")?.to_owned();
    server.restart(|options| options.environment.push(("EMERGENT_GUEST_PATH".to_owned(), path))).await?;

    ensure!(server.api.bash(&old, "cat file; kill -0 $(cat pid) && echo alive").await? == "kept\nalive\n");
    let new = server.api.create_default().await?;
    ensure!(mounted_guest(&server, &old).await? != mounted_guest(&server, &new).await?, "there is one build only");
    // The old one keeps its own build, over a stop, too.
    server.api.post(&format!("{WORKSPACES}/{old}/stop"), serde_json::json!({})).await?.success()?;
    server.api.post(&format!("{WORKSPACES}/{old}/resume"), serde_json::json!({})).await?.success()?;
    ensure!(server.api.bash(&old, "cat file").await? == "kept\n");
    for id in [&old, &new] {
        server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    server.await_nothing_left().await
}

/// The volume that a workspace's guest comes from.
async fn mounted_guest(server: &Server, id: &str) -> anyhow::Result<String> {
    let mounts = server.engine.inspect(id).await?.mounts.unwrap_or_default();
    let guest = mounts.into_iter().filter_map(|mount| mount.name).find(|name| name.starts_with("emergent-guest-"));
    guest.context("no volume with the guest")
}
