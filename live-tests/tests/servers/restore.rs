//! Backup, restore, and upgrade.

use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use bollard::{
    models::{ContainerCreateBody, Mount, MountType},
    query_parameters::{CreateContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions},
};
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, engine, server::program, until};
use serde_json::json;

const LEFTOVERS: &str = "/api/v1/admin/leftovers";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_restored_backup_is_made_to_agree_with_what_docker_has", restored),
        Case::new("a_workspace_outlives_the_upgrade_of_the_server_and_its_guest", upgraded),
        Case::new("a_workspace_with_a_guest_of_the_first_generation_goes_on", first_generation)
            .skipped_because(first_guest().is_none().then(|| "LIVE_FIRST_GUEST names no program".to_owned())),
    ]
}

/// The guest of the release before generation 2, as `scripts/first-guest.sh` builds it.
fn first_guest() -> Option<PathBuf> {
    std::env::var_os("LIVE_FIRST_GUEST").map(PathBuf::from).filter(|path| path.exists())
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
    server.api.bash(&newer, "echo newer > file").await?;
    let taken = server.api.post(&format!("{WORKSPACES}/{newer}/snapshots"), json!({})).await?.success()?;
    let snapshot = taken["id"].as_str().context("a snapshot without an id")?;

    server.terminate().await?;
    let rows = server.data_dir().join("emergent.sqlite");
    for beside in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{beside}", rows.display())).ok();
    }
    fs::rename(copy, &rows)?;
    server.restart(|_| {}).await?;
    // What was made before and is still there goes on; what is gone says so; what came later is kept for
    // somebody to adopt.
    ensure!(server.api.bash(&kept, "cat file").await? == "kept\n");
    let lost = server.api.workspace(&destroyed).await?;
    ensure!(lost["error"]["reason"] == "engine_lost" || lost["state"] == "error", "{lost}");
    ensure!(server.api.get(&format!("{WORKSPACES}/{newer}")).await?.status == 404);
    until("what came after the backup is put aside", Duration::from_secs(180), || async {
        let listed = server.api.get(LEFTOVERS).await?.success()?;
        let found = listed["items"].as_array().map(Vec::len);
        Ok(if found == Some(2) { Ok(()) } else { Err(listed.to_string()) })
    })
    .await?;
    for leftover in [newer.as_str(), snapshot] {
        server.api.post(&format!("{LEFTOVERS}/{leftover}/adopt"), json!({})).await?.success()?;
    }
    server.api.post(&format!("{WORKSPACES}/{newer}/resume"), json!({})).await?.success()?;
    ensure!(server.api.bash(&newer, "cat file").await? == "newer\n");
    let made = server.api.create(json!({ "snapshot_id": snapshot })).await?;
    ensure!(server.api.bash(&made, "cat file").await? == "newer\n");
    server.api.delete(&format!("/api/v1/agent/snapshots/{snapshot}")).await?.refusal(204)?;
    for id in [&kept, &destroyed, &newer, &made] {
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

/// Uses every tool, pause, stop, hold and snapshot of a workspace that an earlier release has left.
async fn first_generation(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let old = server.api.create_default().await?;
    server.api.bash(&old, "git init -q . && echo kept > file").await?;
    server.terminate().await?;
    let volume = as_the_first_release_made_it(&server, &old).await?;
    server.restart(|_| {}).await?;

    let path = format!("{WORKSPACES}/{old}");
    ensure!(server.api.bash(&old, "cat file; (sleep 1000 & echo $! > pid) >/dev/null 2>&1").await? == "kept\n");
    for (tool, body) in [
        ("read", json!({ "file_path": "file" })),
        ("write", json!({ "file_path": "new", "content": "first\n" })),
        ("edit", json!({ "file_path": "new", "old_string": "first", "new_string": "second" })),
        ("glob", json!({ "pattern": "*" })),
        ("grep", json!({ "pattern": "second" })),
        ("git", json!({ "action": "status" })),
    ] {
        server.api.post(&format!("{path}/{tool}"), body).await?.success().with_context(|| format!("calling {tool}"))?;
    }
    let held = server.api.post(&format!("{path}/attach"), json!({ "holder": "agent" })).await?.success()?;
    server.api.post(&format!("{path}/detach"), json!({ "session_id": held["session_id"] })).await?.success()?;
    for step in ["pause", "resume"] {
        server.api.post(&format!("{path}/{step}"), json!({})).await?.success()?;
    }
    ensure!(server.api.bash(&old, "kill -0 $(cat pid) && echo alive").await? == "alive\n");
    for step in ["stop", "resume"] {
        server.api.post(&format!("{path}/{step}"), json!({})).await?.success()?;
    }
    ensure!(server.api.bash(&old, "cat file new").await? == "kept\nsecond\n");
    let snapshot = server.api.post(&format!("{path}/snapshots"), json!({})).await?.success()?;
    let copy = server.api.create(json!({ "snapshot_id": snapshot["id"] })).await?;
    ensure!(server.api.bash(&copy, "cat file new").await? == "kept\nsecond\n");

    for id in [&old, &copy] {
        server.api.delete(&format!("{WORKSPACES}/{id}")).await?.refusal(204)?;
    }
    let snapshot = snapshot["id"].as_str().context("the snapshot's id")?;
    server.api.delete(&format!("/api/v1/agent/snapshots/{snapshot}")).await?.refusal(204)?;
    server
        .engine
        .docker()
        .remove_volume(&volume, None::<RemoveVolumeOptions>)
        .await
        .context("removing the first guest's volume")?;
    server.await_nothing_left().await
}

/// Replaces a workspace's container by the one that the first release would have made: the same but for the guest and
/// its settings. Returns the name of the volume that the guest comes from.
async fn as_the_first_release_made_it(server: &Server, id: &str) -> anyhow::Result<String> {
    let volume = format!("emergent-first-guest-{id}");
    let guest = first_guest().context("LIVE_FIRST_GUEST")?;
    let fill = "cat > /to/emergent-guest && chmod 755 /to/emergent-guest";
    let filled = Command::new("docker")
        .args(["run", "--rm", "--interactive", "--network=none", "--volume", &format!("{volume}:/to")])
        .args(["emergent/workspace:latest", "sh", "-c", fill])
        .stdin(fs::File::open(guest)?)
        .output()?;
    ensure!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));

    let made = server.engine.inspect(id).await?;
    let (config, mut host) = (made.config.context("config")?, made.host_config.context("host config")?);
    for mount in host.mounts.iter_mut().flatten().filter(|mount| mount.target.as_deref() == Some("/.emergent")) {
        *mount = Mount {
            target: mount.target.take(),
            source: Some(volume.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(true),
            ..Mount::default()
        };
    }
    let first = ContainerCreateBody {
        hostname: config.hostname,
        user: config.user,
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        entrypoint: config.entrypoint,
        cmd: Some(["serve", "--stdio"].map(str::to_owned).to_vec()),
        image: config.image,
        working_dir: config.working_dir,
        labels: config.labels,
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    server.engine.remove(id).await?;
    let name = engine::container(id);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let docker = server.engine.docker();
    docker.create_container(Some(options), first).await.context("making the first release's container")?;
    docker
        .start_container(&name, None::<StartContainerOptions>)
        .await
        .context("starting the first release's container")?;
    Ok(volume)
}

/// The volume that a workspace's guest comes from.
async fn mounted_guest(server: &Server, id: &str) -> anyhow::Result<String> {
    let mounts = server.engine.inspect(id).await?.mounts.unwrap_or_default();
    let guest = mounts.into_iter().filter_map(|mount| mount.name).find(|name| name.starts_with("emergent-guest-"));
    guest.context("no volume with the guest")
}
