//! The manager is killed at every step of its operations; the next one brings everything into order.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Manager, manager::small};
use serde_json::json;

/// The time of a case: each boots or restores a machine at every step, which takes seconds where it is emulated.
const PATIENCE: Duration = Duration::from_secs(400);

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        Case::new("killed_at_any_step_of_a_pause_or_resume_no_process_is_lost", |_| pauses()),
        Case::new("killed_at_any_step_of_a_snapshot_the_machine_goes_on_and_nothing_is_left", |_| snapshots()),
        Case::new("killed_at_any_step_of_a_create_nothing_is_left", |_| creates()),
        Case::new("killed_at_any_step_of_a_removal_or_stop_it_comes_to_its_end", |_| ends()),
    ];
    cases.into_iter().map(|case| case.within(PATIENCE)).collect()
}

/// Makes a call during which the manager kills itself at a step, and starts it again.
async fn struck(manager: &mut Manager, step: &str, call: &str, body: Option<serde_json::Value>) -> anyhow::Result<()> {
    manager.terminate().await?;
    manager.restart(&[("EMERGENT_FAULT", step)]).await?;
    let answer = manager.call(call, body).await;
    manager.await_exit().await.with_context(|| format!("{step} is not passed: {answer:?}"))?;
    manager.restart(&[]).await
}

async fn remembers(manager: &Manager, id: &str, step: &str) -> anyhow::Result<()> {
    // Whatever it was brought to: its processes go on.
    manager.done(&format!("POST /sandboxes/{id}/resume"), None).await.with_context(|| step.to_owned())?;
    let alive = manager.run(id, "cat /dev/shm/memory && kill -0 $(cat /tmp/sleeper.pid)").await;
    ensure!(alive.as_deref().is_ok_and(|text| text == "kept"), "{step}: {alive:?}");
    Ok(())
}

/// A sandbox with a process, and something that only its memory holds.
async fn with_process(manager: &Manager) -> anyhow::Result<String> {
    let id = manager.create().await?;
    let command = "echo kept > /dev/shm/memory; nohup sleep 10000 > /dev/null 2>&1 & echo $! > /tmp/sleeper.pid";
    manager.run(&id, command).await?;
    Ok(id)
}

async fn pauses() -> anyhow::Result<()> {
    let mut manager = Manager::start(&[]).await?;
    let id = with_process(&manager).await?;
    let pause =
        ["intent_recorded", "machine_frozen", "state_saved", "state_placed", "machine_ended", "paused_recorded"];
    for step in pause.map(|step| format!("pause.{step}")) {
        struck(&mut manager, &step, &format!("POST /sandboxes/{id}/pause"), None).await?;
        remembers(&manager, &id, &step).await?;
    }
    let resume = [
        "intent_recorded",
        "network_attached",
        "machine_restored",
        "guest_answered",
        "ready_recorded",
        "state_removed",
    ];
    for step in resume.map(|step| format!("resume.{step}")) {
        manager.done(&format!("POST /sandboxes/{id}/pause"), None).await?;
        struck(&mut manager, &step, &format!("POST /sandboxes/{id}/resume"), None).await?;
        remembers(&manager, &id, &step).await?;
        ensure!(manager.names("snapshots")? == ["named"], "{step}: {:?}", manager.names("snapshots"));
    }
    Ok(())
}

async fn snapshots() -> anyhow::Result<()> {
    let mut manager = Manager::start(&[]).await?;
    let id = with_process(&manager).await?;
    for step in ["directory_made", "machine_frozen", "copied", "machine_thawed"] {
        let step = format!("copy.{step}");
        let call = format!("POST /sandboxes/{id}/snapshots");
        struck(&mut manager, &step, &call, Some(json!({ "memory": true }))).await?;
        remembers(&manager, &id, &step).await?;
        ensure!(manager.names("snapshots/named")?.is_empty(), "{step} leaves something");
    }
    Ok(())
}

async fn creates() -> anyhow::Result<()> {
    let mut manager = Manager::start(&[]).await?;
    for step in ["intent_recorded", "disks_made", "network_attached", "machine_booted", "guest_answered"] {
        let step = format!("boot.{step}");
        struck(&mut manager, &step, "POST /sandboxes", Some(small())).await?;
        ensure!(manager.names("sandboxes")?.is_empty(), "{step} leaves {:?}", manager.names("sandboxes"));
        let capacity = manager.done("GET /capacity", None).await?;
        ensure!(capacity["running"] == 0, "{step}: {capacity}");
    }
    Ok(())
}

async fn ends() -> anyhow::Result<()> {
    let mut manager = Manager::start(&[]).await?;
    let id = manager.create().await?;
    for step in ["intent_recorded", "machine_ended", "stopped_recorded"] {
        let step = format!("halt.{step}");
        manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
        struck(&mut manager, &step, &format!("POST /sandboxes/{id}/stop"), None).await?;
        ensure!(manager.status(&id).await? == "stopped" && manager.machine(&id).is_none(), "{step}");
    }
    // One machine for the first of them, and stopped sandboxes for the rest: what runs makes a difference there only.
    manager.done(&format!("POST /sandboxes/{id}/resume"), None).await?;
    struck(&mut manager, "remove.intent_recorded", &format!("DELETE /sandboxes/{id}"), None).await?;
    ensure!(manager.names("sandboxes")?.is_empty(), "{:?}", manager.names("sandboxes"));
    Ok(())
}
