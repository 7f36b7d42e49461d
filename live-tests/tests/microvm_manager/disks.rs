//! The sizes of disks, seen from inside.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Manager, manager::small, server::program};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The part of its disk's size that a file system may lack, in percent: its own tables.
const OVERHEAD: u64 = 10;

/// The time for a case in which an image is built, and a file system filled, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(400);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("disks_have_the_size_that_was_asked_for", |_| sizes()).within(PATIENCE),
        Case::new("a_machine_with_full_disks_starts_again_and_can_be_cleared", |_| full()),
    ]
}

async fn sizes() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let mut build = Command::new(program("emergent")?);
    build.args(["image", "build", "--name", "tight", "--from", "emergent/workspace:latest", "--size", "1", "--base"]);
    build.arg(manager.path(""));
    let built = tokio::task::spawn_blocking(move || build.output()).await??;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let sized = |disk: u64| {
        let mut body = small();
        (body["template"], body["disk_mb"]) = (json!("tight"), json!(disk));
        body
    };
    let first = create(&manager, sized(2048)).await?;
    has_disks_of(&manager, &first, 2048).await?;
    // More than there is room for in the image.
    let free: u64 = manager.run(&first, "df -BM --output=avail / | tail -n 1 | tr -dc 0-9").await?.parse()?;
    ensure!(free > 1024, "the root has {free} MiB left");
    let more = free - 1024 + 100;
    manager.run(&first, &format!("dd if=/dev/zero of=/var/tmp/more bs=1M count={more} && sync")).await?;

    // One that begins with the template's snapshot has the same, and another size is another machine.
    let second = create(&manager, sized(2048)).await?;
    ensure!(manager.log().contains("began with its template's snapshot"), "{}", manager.log());
    has_disks_of(&manager, &second, 2048).await?;
    manager.run(&second, "test ! -e /var/tmp/more").await?;
    has_disks_of(&manager, &create(&manager, sized(3072)).await?, 3072).await?;

    // So has a copy of the first, and one that boots may have more.
    let fork = manager.done(&format!("POST /sandboxes/{first}/fork"), Some(json!({}))).await?;
    has_disks_of(&manager, fork["sandbox_id"].as_str().context("a fork has an id")?, 2048).await?;
    let taken = manager.done(&format!("POST /sandboxes/{first}/snapshots"), Some(json!({ "memory": false }))).await?;
    let mut body = sized(3072);
    (body["snapshot_id"], body["boot"]) = (taken["snapshot_id"].clone(), json!(true));
    let larger = create(&manager, body).await?;
    has_disks_of(&manager, &larger, 3072).await?;
    ensure!(manager.run(&larger, "stat -c %s /var/tmp/more").await? == (more << 20).to_string());
    Ok(())
}

/// A machine whose root and `/workspace` have no free block starts after a stop and after a kill.
async fn full() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    let exec = format!("POST /sandboxes/{id}/exec");
    let fill = |place: &str| {
        let free = format!("$(df -k --output=avail {place} | tail -n 1)");
        json!({ "command": format!("fallocate -l {free}K {place}/filler; cat /dev/zero > {place}/rest") })
    };
    for place in ["/workspace", "/var/tmp"] {
        let filled = manager.done(&exec, Some(fill(place))).await?;
        ensure!(filled["exit_code"] == 1, "{place} takes more and more: {filled}");
    }
    for killed in [false, true] {
        if killed {
            kill_process(manager.machine(&id).context("the machine runs")?, Signal::KILL)?;
            let deadline = Instant::now() + Duration::from_secs(20);
            while manager.status(&id).await? != "stopped" {
                ensure!(Instant::now() < deadline, "{}", manager.log());
                sleep(Duration::from_millis(100)).await;
            }
        } else {
            manager.done(&format!("POST /sandboxes/{id}/stop"), None).await?;
        }
        manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
        let more = manager.done(&exec, Some(json!({ "command": "echo more > /workspace/more" }))).await?;
        ensure!(more["exit_code"] != 0, "there is room: {more}");
    }
    manager.run(&id, "rm /var/tmp/filler /var/tmp/rest /workspace/filler /workspace/rest").await?;
    ensure!(manager.run(&id, "echo room > /workspace/more && cat /workspace/more").await? == "room");
    Ok(())
}

async fn create(manager: &Manager, body: Value) -> anyhow::Result<String> {
    let made = manager.done("POST /sandboxes", Some(body)).await?;
    Ok(made["sandbox_id"].as_str().context("a sandbox has an id")?.to_owned())
}

/// Looks at the root and at `/workspace`, which are to have so many MiB.
async fn has_disks_of(manager: &Manager, id: &str, wanted: u64) -> anyhow::Result<()> {
    let said = manager.run(id, "df -BM --output=size / /workspace | tail -n 2 | tr -d M").await?;
    let sizes = said.lines().map(|line| line.trim().parse()).collect::<Result<Vec<u64>, _>>()?;
    let least = wanted - wanted * OVERHEAD / 100;
    ensure!(sizes.len() == 2 && sizes.iter().all(|size| (least..=wanted).contains(size)), "{wanted} MiB are {said}");
    Ok(())
}
