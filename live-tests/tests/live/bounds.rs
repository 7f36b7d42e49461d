//! The resources of its host that one workspace may take, and the errors when it takes more.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, until};
use serde_json::json;

/// The time that the server may take to see an event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("what_is_written_beyond_the_disk_limit_ends_the_workspace", disk_limit_in_the_workspace),
        Case::new("the_disk_limit_counts_what_is_outside_the_workspace_directory", disk_limit_outside),
        Case::new("the_disk_limit_counts_what_is_removed_and_still_written", disk_limit_of_removed_files),
        Case::new("the_disk_limit_counts_what_is_removed_and_only_runs", disk_limit_of_programs),
        Case::new("the_disk_limit_counts_what_is_removed_and_only_mapped", disk_limit_of_mappings),
        Case::new("the_disk_limit_counts_what_is_deep", disk_limit_of_deep_files),
        Case::new("the_disk_limit_counts_names", disk_limit_of_names),
        Case::new("a_snapshot_that_would_fill_the_host_is_refused", sparse_snapshot),
        Case::new("a_host_that_is_nearly_full_takes_nothing_more", nearly_full_host),
        Case::new("a_fork_bomb_is_told_as_what_it_was", fork_bomb),
    ]
}

async fn disk_limit_in_the_workspace(runtime: Runtime) -> anyhow::Result<()> {
    disk_limit(runtime, "/workspace").await
}

async fn disk_limit_outside(runtime: Runtime) -> anyhow::Result<()> {
    disk_limit(runtime, "/var/tmp").await
}

/// Writes a gibibyte, slowly, where a hundred mebibytes are allowed.
async fn disk_limit(runtime: Runtime, place: &str) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "disk": "100M" } })).await?;
    let roots = roots(&server, &id).await?;
    let script = format!(
        "mkdir -p {place}/full; for i in $(seq 100); do head -c 10M /dev/zero >{place}/full/$i; sleep 0.3; done"
    );
    let started = json!({ "execution_id": "writer", "command": script });
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), started).await?.success()?;
    let failed = server.api.await_state(&id, "error", PATIENCE).await?;
    ensure!(failed["error"]["reason"] == "disk_full", "{}", failed["error"]);
    let used = used(&roots)?;
    ensure!(used <= 400 * MIB, "{} MiB were written", used / MIB);

    let refused = server.api.tool(&id, "bash", json!({ "command": "true" })).await?.refusal(507)?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains("files/remove")), "{refused}");
    let write = json!({ "file_path": "/workspace/more", "content": "more" });
    server.api.tool(&id, "write", write).await?.refusal(507)?;
    let remove = json!({ "path": format!("{place}/full"), "recursive": true });
    server.api.post(&format!("{WORKSPACES}/{id}/files/remove"), remove).await?.success()?;
    // The next call is not refused by an old count.
    server.api.tool(&id, "bash", json!({ "command": "true" })).await?.success()?;
    is_lost(&server, &id, "writer", "wrote more than its disk holds").await
}

/// An execution was lost with its sandbox, and says why that ended.
async fn is_lost(server: &Server, id: &str, execution: &str, why: &str) -> anyhow::Result<()> {
    let shown = server.api.get(&format!("{WORKSPACES}/{id}/processes/{execution}")).await?.success()?;
    ensure!(shown["outcome"] == "lost", "{shown}");
    ensure!(shown["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{shown}");
    Ok(())
}

async fn programs_run_again(server: &Server, id: &str) -> anyhow::Result<()> {
    until("programs run again", PATIENCE, async || {
        let ran = server.api.tool(id, "bash", json!({ "command": "true" })).await?;
        Ok(if ran.status.is_success() { Ok(()) } else { Err(ran.body.to_string()) })
    })
    .await
}

async fn disk_limit_of_removed_files(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "disk": "100M" } })).await?;
    let script =
        "exec 3>/var/tmp/file; rm /var/tmp/file; for i in $(seq 100); do head -c 10M /dev/zero >&3; sleep 0.3; done";
    let started = json!({ "command": script });
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), started).await?.success()?;
    let failed = server.api.await_state(&id, "error", PATIENCE).await?;
    ensure!(failed["error"]["reason"] == "disk_full", "{}", failed["error"]);
    programs_run_again(&server, &id).await
}

/// Programs whose files are removed while they run; no file of theirs is open or has a name.
async fn disk_limit_of_programs(runtime: Runtime) -> anyhow::Result<()> {
    disk_limit_of_unnamed_files(runtime, "cp holder file; head -c 50M /dev/zero >>file; ./file & sleep 1; rm file")
        .await
}

/// Removed files that are mapped by processes whose first thread has ended, and open nowhere.
async fn disk_limit_of_mappings(runtime: Runtime) -> anyhow::Result<()> {
    disk_limit_of_unnamed_files(runtime, "head -c 50M /dev/zero >file; ./holder file & sleep 1; rm file").await
}

/// Runs four times a script whose 50 MiB stay after it, where a hundred are allowed.
async fn disk_limit_of_unnamed_files(runtime: Runtime, script: &str) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "disk": "100M" } })).await?;
    let holder = "#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
static void *stay(void *nothing) { sleep(600); return nothing; }
int main(int count, char **names) {
    if (count > 1) {
        int file = open(names[1], O_RDWR);
        if (mmap(0, 50 << 20, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED) return 1;
        close(file);
    }
    pthread_t other;
    pthread_create(&other, 0, stay, 0);
    pthread_exit(0);
}";
    let compile = format!("cd /var/tmp && gcc -pthread -x c - -o holder <<'end'\n{holder}\nend");
    server.api.bash(&id, &compile).await?;
    let command = format!("cd /var/tmp; for i in 1 2 3 4; do {script}; done; wait");
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), json!({ "command": command })).await?.success()?;
    let failed = server.api.await_state(&id, "error", PATIENCE).await?;
    ensure!(failed["error"]["reason"] == "disk_full", "{}", failed["error"]);
    programs_run_again(&server, &id).await
}

/// A file below more directories than are open at once while they are counted.
async fn disk_limit_of_deep_files(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "disk": "100M" } })).await?;
    let script = "p=$(printf 'd/%.0s' $(seq 600)); mkdir -p $p && cd $p && head -c 200M /dev/zero >file; sleep 600";
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), json!({ "command": script })).await?.success()?;
    let failed = server.api.await_state(&id, "error", PATIENCE).await?;
    ensure!(failed["error"]["reason"] == "disk_full", "{}", failed["error"]);
    Ok(())
}

/// Names of one file take next to no room, but time to count, in which others write.
async fn disk_limit_of_names(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "disk": "64M" } })).await?;
    let names = "import os
for number in range(1_000_000):
    first = f'file-{number // 40_000}'
    open(first, 'w').close() if number % 40_000 == 0 else os.link(first, str(number))";
    let script = format!("mkdir names && cd names && python3 - <<'end'\n{names}\nend");
    server.api.post(&format!("{WORKSPACES}/{id}/processes"), json!({ "command": script })).await?.success()?;
    let failed = server.api.await_state(&id, "error", PATIENCE).await?;
    ensure!(failed["error"]["reason"] == "disk_full", "{}", failed["error"]);
    ensure!(failed["error"]["message"].as_str().is_some_and(|it| it.contains("names")), "{}", failed["error"]);
    let remove = json!({ "path": "/workspace/names", "recursive": true });
    server.api.post(&format!("{WORKSPACES}/{id}/files/remove"), remove).await?.success()?;
    programs_run_again(&server, &id).await
}

/// The engine fills the holes of files that it puts into an image.
async fn sparse_snapshot(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.api.bash(&id, "truncate -s 8T /var/tmp/sparse").await?;
    let snapshots = format!("{WORKSPACES}/{id}/snapshots");
    let refused = server.api.post(&snapshots, json!({})).await?.refusal(507)?;
    ensure!(refused["type"] == "/problems/host-disk-full", "{refused}");
    let forked = server.api.post(&format!("{WORKSPACES}/{id}/fork"), json!({})).await?.refusal(507)?;
    ensure!(forked["type"] == "/problems/host-disk-full", "{forked}");
    server.api.bash(&id, "rm /var/tmp/sparse").await?;
    server.api.post(&snapshots, json!({})).await?.success().map(drop)
}

async fn nearly_full_host(runtime: Runtime) -> anyhow::Result<()> {
    let mut server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    server.terminate().await?;
    // More than any disk has left.
    server.restart(|options| *options = options.clone().with("WORKSPACE_DISK_RESERVE", "1048576G")).await?;
    let refused = server.api.post(WORKSPACES, json!({})).await?.refusal(507)?;
    ensure!(refused["detail"].as_str().is_some_and(|it| it.contains("WORKSPACE_DISK_RESERVE")), "{refused}");
    server.api.post(&format!("{WORKSPACES}/{id}/snapshots"), json!({})).await?.refusal(507)?;
    let write = json!({ "file_path": "/workspace/more", "content": "more" });
    server.api.tool(&id, "write", write).await?.refusal(507)?;
    ensure!(server.api.bash(&id, "echo here").await? == "here\n", "who does not write goes on");
    Ok(())
}

/// Under gVisor each process costs the host several tasks, and the sandbox ends when it may have no more of them.
async fn fork_bomb(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true, "resource_limits": { "pids": 64 } })).await?;
    let bomb = "for i in $(seq 500); do (while :; do /bin/true; done) & done; wait";
    let bomb = json!({ "command": bomb, "user": "root" });
    let path = format!("{WORKSPACES}/{id}/processes");
    let started = server.api.post(&path, bomb).await?.success()?;
    if runtime == Runtime::Runsc {
        let failed = server.api.await_state(&id, "error", PATIENCE).await?;
        ensure!(failed["error"]["reason"] == "process_limit", "{}", failed["error"]);
        ensure!(failed["error"]["message"].as_str().is_some_and(|it| !it.contains("outside")), "{}", failed["error"]);
    } else {
        let execution = started["execution_id"].as_str().context("no execution")?;
        server.api.post(&format!("{path}/{execution}/cancel"), json!({})).await?.success()?;
    }
    ensure!(server.api.bash(&id, "echo alive").await? == "alive\n", "it goes on, or is started again");
    if runtime == Runtime::Runsc {
        let execution = started["execution_id"].as_str().context("no execution")?;
        is_lost(&server, &id, execution, "reached its limit on processes").await?;
    }
    Ok(())
}

/// The directories in which the host keeps a workspace's files.
async fn roots(server: &Server, id: &str) -> anyhow::Result<Vec<PathBuf>> {
    let container = server.engine.inspect(id).await?;
    let layer = container.graph_driver.and_then(|driver| driver.data.get("UpperDir").cloned());
    let volumes = container.mounts.context("no mounts")?.into_iter().filter(|mount| mount.rw == Some(true));
    Ok(volumes.filter_map(|mount| mount.source).chain(layer).map(PathBuf::from).collect())
}

fn used(roots: &[PathBuf]) -> anyhow::Result<u64> {
    let counted = std::process::Command::new("du").args(["-scxB1"]).args(roots).output().context("du")?;
    let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
    let total = counted.lines().last().and_then(|line| line.split_whitespace().next()).context("du said nothing")?;
    Ok(total.parse()?)
}
