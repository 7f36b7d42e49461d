//! A sandbox's life: made, used, paused to disk and resumed in another process, forked, deleted.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Manager, manager::small};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_sandbox_is_used_by_the_words_of_the_page", |_| use_it()),
        Case::new("processes_survive_pauses_and_forks_go_their_own_ways", |_| pause_and_fork()),
        Case::new("machines_outlive_the_manager_and_are_adopted", |_| adopt()),
        Case::new("a_machine_that_is_killed_is_said_and_booted_again_with_its_files", |_| killed()),
        Case::new("a_snapshot_of_files_is_booted_from", |_| boot_from_snapshot()),
        Case::new("what_begins_with_a_templates_snapshot_is_nobody_elses", |_| template_snapshot()),
    ]
}

/// A process that counts in its memory and says how far it is when it is asked.
const COUNTER: &str = "nohup bash -c 'n=0; while true; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; done' \
                       > /dev/null 2>&1 & echo $! > /tmp/counter.pid";

async fn use_it() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    ensure!(manager.run(&id, "echo $((6 * 7))").await? == "42");
    let path = "/workspace/deep/hello.py";
    let content = "print('Hello!')\n";
    manager
        .done(&format!("POST /sandboxes/{id}/files/write"), Some(json!({ "path": path, "content": content })))
        .await?;
    let read = manager.done(&format!("GET /sandboxes/{id}/files/read?path={path}"), None).await?;
    ensure!(read["content"] == content, "{read}");
    ensure!(manager.run(&id, "cat deep/hello.py && id -u && pwd").await? == format!("{content}1000\n/workspace"));
    let list = manager.done(&format!("GET /sandboxes/{id}/files/list?path=/workspace"), None).await?;
    let has = |name: &str| list["files"].as_array().is_some_and(|files| files.iter().any(|file| file["name"] == name));
    ensure!(has("deep"), "{list}");
    let body = json!({ "command": "echo out; echo err >&2; exit 3", "timeout_seconds": 30, "working_dir": "/tmp" });
    let failed = manager.done(&format!("POST /sandboxes/{id}/exec"), Some(body)).await?;
    ensure!(failed["exit_code"] == 3 && failed["stdout"] == "out\n" && failed["stderr"] == "err\n", "{failed}");
    let body = json!({ "command": "sleep 60", "timeout_seconds": 0.5 });
    let late = manager.done(&format!("POST /sandboxes/{id}/exec"), Some(body)).await?;
    ensure!(late["timed_out"] == true, "{late}");
    let (status, missing) = manager.call(&format!("GET /sandboxes/{id}/files/read?path=/none"), None).await?;
    ensure!(status == 404 && missing["type"].is_string(), "{status} {missing}");
    bulk(&manager, &id).await?;
    manager.done(&format!("DELETE /sandboxes/{id}"), None).await?;
    ensure!(manager.machine(&id).is_none() && manager.names("sandboxes")?.is_empty());
    Ok(())
}

/// Eight megabytes in and out, streamed.
async fn bulk(manager: &Manager, id: &str) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    let client = reqwest::Client::new();
    let at = |what: &str| format!("{}/sandboxes/{id}/files/{what}?path=/workspace/bulk", manager.url());
    let sent = client.put(at("upload")).body(bytes.clone()).send().await?;
    ensure!(sent.status().is_success(), "{}", sent.text().await?);
    let back = client.get(at("download")).send().await?.bytes().await?;
    ensure!(back == bytes, "{} bytes came back", back.len());
    Ok(())
}

async fn pause_and_fork() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    manager.run(&id, COUNTER).await?;
    let mut before = count(&manager, &id).await?;
    for round in 0..2 {
        manager.done(&format!("POST /sandboxes/{id}/pause"), None).await?;
        ensure!(manager.machine(&id).is_none(), "the machine is there while its sandbox is paused");
        ensure!(manager.path(&format!("snapshots/{id}/manifest.json")).is_file(), "{:?}", manager.names("snapshots"));
        manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
        let after = count(&manager, &id).await?;
        ensure!(after >= before && after < before + 400, "round {round}: it counted from {before} to {after}");
        manager.run(&id, "kill -0 $(cat /tmp/counter.pid)").await?;
        before = after;
    }
    let fork = manager.done(&format!("POST /sandboxes/{id}/fork"), Some(json!({}))).await?;
    let fork = fork["sandbox_id"].as_str().context("a fork has an id")?;
    ensure!(count(&manager, fork).await? >= before, "the fork does not go on from where its parent was");
    manager.run(fork, "echo mine > /workspace/own && kill -0 $(cat /tmp/counter.pid)").await?;
    manager.run(&id, "test ! -e /workspace/own").await?;
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    let (one, other) = (manager.run(&id, random).await?, manager.run(fork, random).await?);
    ensure!(one != other, "both draw {one}");
    ensure!(manager.names("snapshots/named")?.is_empty(), "a fork leaves its snapshot");
    Ok(())
}

async fn count(manager: &Manager, id: &str) -> anyhow::Result<u64> {
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        // The counter makes the file, and replaces it at each step, so that now and then it is not there or empty.
        if let Ok(count) = manager.run(id, "cat /tmp/count 2>/dev/null || true").await?.parse() {
            return Ok(count);
        }
        ensure!(Instant::now() < deadline, "nothing counts");
    }
}

async fn adopt() -> anyhow::Result<()> {
    let mut manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    manager.run(&id, "echo kept > /dev/shm/memory").await?;
    let machine = manager.machine(&id).context("the machine runs")?;
    for orderly in [true, false] {
        if orderly {
            manager.terminate().await?
        } else {
            manager.kill()?
        }
        ensure!(manager.machine(&id) == Some(machine), "the machine ended with the manager");
        manager.restart(&[]).await?;
        ensure!(manager.status(&id).await? == "ready" && manager.machine(&id) == Some(machine));
        ensure!(manager.run(&id, "cat /dev/shm/memory").await? == "kept");
    }
    Ok(())
}

async fn killed() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    manager.run(&id, "echo kept > /workspace/file && sync").await?;
    kill_process(manager.machine(&id).context("the machine runs")?, Signal::KILL)?;
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let stopped: Value = loop {
        let sandbox = manager.done(&format!("GET /sandboxes/{id}"), None).await?;
        if sandbox["status"] == "stopped" {
            break sandbox;
        }
        ensure!(Instant::now() < deadline, "{sandbox}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    ensure!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("killed")), "{stopped}");
    let (status, refused) =
        manager.call(&format!("POST /sandboxes/{id}/exec"), Some(json!({ "command": "true" }))).await?;
    ensure!(status == 409, "{refused}");
    manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
    ensure!(manager.run(&id, "cat /workspace/file").await? == "kept");
    Ok(())
}

async fn boot_from_snapshot() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    // Not flushed by the writer: the snapshot sees to that.
    manager.run(&id, "echo kept > /workspace/file").await?;
    let taken = manager.done(&format!("POST /sandboxes/{id}/snapshots"), Some(json!({ "memory": false }))).await?;
    manager.run(&id, "echo later > /workspace/file").await?;
    let mut body = small();
    body["snapshot_id"] = taken["snapshot_id"].clone();
    body["memory_mb"] = json!(300);
    let made = manager.done("POST /sandboxes", Some(body)).await?;
    let other = made["sandbox_id"].as_str().context("a sandbox has an id")?;
    ensure!(manager.run(other, "cat /workspace/file").await? == "kept");
    ensure!(manager.run(&id, "cat /workspace/file").await? == "later");
    Ok(())
}

async fn template_snapshot() -> anyhow::Result<()> {
    let manager = Manager::start(&[]).await?;
    let first = manager.create().await?;
    manager.run(&first, "echo secret > /workspace/own; sync").await?;
    let snapshot = |manager: &Manager| -> anyhow::Result<_> {
        let names = manager.names("template-snapshots")?;
        ensure!(names.len() == 1, "{names:?}\n{}", manager.log());
        Ok(manager.path("template-snapshots").join(&names[0]))
    };
    let mut ids = vec![first];
    for _ in 0..2 {
        let used = snapshot(&manager)?.join("template.json").metadata()?.modified()?;
        ids.push(manager.create().await?);
        ensure!(snapshot(&manager)?.join("template.json").metadata()?.modified()? > used, "{}", manager.log());
    }
    let mut drawn = Vec::new();
    for id in &ids {
        drawn.push(manager.run(id, "hostname").await?);
        drawn.push(manager.run(id, "cat /etc/machine-id").await?);
        drawn.push(manager.run(id, "head -c 16 /dev/urandom | od -An -tx1").await?);
        drawn.push(manager.run(id, "cat /proc/sys/kernel/random/uuid").await?);
        let seconds: i64 = manager.run(id, "date +%s").await?.parse()?;
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
        ensure!((now - seconds).abs() <= 5, "the clock says {seconds} at {now}");
    }
    let mut distinct = drawn.clone();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == drawn.len(), "something is the same in two of them: {drawn:?}");
    manager.run(&ids[1], "test ! -e /workspace/own && echo mine > /workspace/own && sync").await?;
    manager.run(&ids[2], "test ! -e /workspace/own").await?;
    // A life goes on as any other's.
    manager.done(&format!("POST /sandboxes/{}/pause", ids[1]), None).await?;
    manager.done(&format!("POST /sandboxes/{}/resume", ids[1]), None).await?;
    ensure!(manager.run(&ids[1], "cat /workspace/own && hostname").await? == format!("mine\n{}", drawn[4]));
    manager.done(&format!("POST /sandboxes/{}/stop", ids[1]), None).await?;
    manager.done(&format!("POST /sandboxes/{}/resume", ids[1]), None).await?;
    ensure!(manager.run(&ids[1], "hostname && cat /etc/machine-id").await? == format!("{}\n{}", drawn[4], drawn[5]));
    let state = snapshot(&manager)?.join("state/snapshot");
    let length = state.metadata()?.len();
    std::fs::File::options().write(true).open(&state)?.set_len(length / 2)?;
    let after_damage = manager.create().await?;
    ensure!(manager.run(&after_damage, "echo here").await? == "here");
    ensure!(manager.log().contains("is not good and is removed"), "{}", manager.log());
    ensure!(snapshot(&manager)?.join("state/snapshot").metadata()?.len() > length / 2, "it was not taken anew");
    Ok(())
}
