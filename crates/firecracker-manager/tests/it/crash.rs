//! A manager that ends at any step leaves what the next one brings into order: nothing leaks, nothing alive is ended,
//! nothing that was promised is lost.

use std::{
    fs::File,
    time::{Duration, UNIX_EPOCH},
};

use emergent_firecracker_manager::{
    NewSandbox, NewSnapshot, Phase, SandboxId,
    step::{BootStep, CopyStep, HaltStep, PauseStep, RemoveStep, ResumeStep},
};

use crate::{
    monitor::count_on,
    service::{Halt, Host, Process},
};

/// The memory of a sandbox's processes in these tests.
const REMEMBERED: &str = "what only memory holds";

/// A host with one sandbox that runs, and a manager that is about to be halted.
async fn with_one(halt: &Halt) -> (Host, Process, SandboxId) {
    // Nobody looks after machines while a test does something to them.
    let host = Host { watch_interval: Duration::from_secs(3600), ..Host::new() };
    let manager = host.start_process(halt).await;
    let new = NewSandbox { workspace_id: Some("mine".to_owned()), ..NewSandbox::default() };
    let (record, made) = manager.call(|it| async move { it.create(new).await }).await.unwrap();
    assert!(made && record.phase == Phase::Ready);
    host.monitor.remember(&host.sandbox(record.id()), REMEMBERED);
    (host, manager, record.id())
}

#[tokio::test]
async fn a_create_that_was_cut_short_leaves_nothing() {
    for step in BootStep::ALL {
        let (host, halt) = (Host::new(), Halt::nowhere());
        halt.at(step.name());
        let manager = host.start_process(&halt).await;
        assert!(
            halt.reached_by(manager.call(|it| async move { it.create(NewSandbox::default()).await })).await,
            "{step:?} is not passed"
        );
        manager.crash().await;
        let next = host.start().await;
        if *step == BootStep::ReadyRecorded {
            assert_eq!((next.list().len(), next.list()[0].phase, host.monitor.alive()), (1, Phase::Ready, 1));
            continue;
        }
        assert_eq!((next.list().len(), host.monitor.alive()), (0, 0), "{step:?}");
        assert!(host.names("sandboxes").is_empty(), "{step:?}");
        assert_eq!(next.capacity().running, 0, "{step:?}");
    }
}

#[tokio::test]
async fn a_pause_that_was_cut_short_loses_no_process() {
    for step in PauseStep::ALL {
        let halt = Halt::nowhere();
        let (host, manager, id) = with_one(&halt).await;
        halt.at(step.name());
        assert!(
            halt.reached_by(manager.call(move |it| async move { it.pause(id).await })).await,
            "{step:?} is not passed"
        );
        manager.crash().await;
        let next = host.start().await;
        let phase = next.get(id).unwrap().phase;
        let placed = !matches!(step, PauseStep::IntentRecorded | PauseStep::MachineFrozen | PauseStep::StateSaved);
        assert_eq!(phase, if placed { Phase::Paused } else { Phase::Ready }, "{step:?}");
        assert_eq!(host.monitor.frozen(), 0, "{step:?}");
        assert_eq!(next.capacity().running, usize::from(!placed), "{step:?}");
        next.resume(id).await.unwrap();
        assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some(REMEMBERED), "{step:?}");
        assert_eq!(host.names("snapshots"), ["named"], "{step:?}");
    }
}

#[tokio::test]
async fn a_resume_that_was_cut_short_loses_no_process() {
    for step in ResumeStep::ALL {
        let halt = Halt::nowhere();
        let (host, manager, id) = with_one(&halt).await;
        manager.call(move |it| async move { it.pause(id).await }).await.unwrap();
        assert_eq!(host.monitor.alive(), 0);
        halt.at(step.name());
        assert!(
            halt.reached_by(manager.call(move |it| async move { it.resume(id).await })).await,
            "{step:?} is not passed"
        );
        manager.crash().await;
        let next = host.start().await;
        let ran = !matches!(step, ResumeStep::IntentRecorded | ResumeStep::NetworkAttached);
        assert_eq!(next.get(id).unwrap().phase, if ran { Phase::Ready } else { Phase::Paused }, "{step:?}");
        next.resume(id).await.unwrap();
        assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some(REMEMBERED), "{step:?}");
        assert_eq!(host.names("snapshots"), ["named"], "{step:?}");
        assert_eq!((host.monitor.alive(), next.capacity().running), (1, 1), "{step:?}");
    }
}

#[tokio::test]
async fn a_machine_that_died_after_its_resume_is_not_resumed_from_a_state_that_its_disks_are_ahead_of() {
    let halt = Halt::nowhere();
    let (host, manager, id) = with_one(&halt).await;
    manager.call(move |it| async move { it.pause(id).await }).await.unwrap();
    halt.at(ResumeStep::MachineRestored.name());
    assert!(halt.reached_by(manager.call(move |it| async move { it.resume(id).await })).await);
    std::fs::write(host.sandbox(id).join("data.ext4"), "written by the machine").unwrap();
    host.monitor.kill(&host.sandbox(id));
    manager.crash().await;
    let next = host.start().await;
    let record = next.get(id).unwrap();
    assert_eq!(record.phase, Phase::Stopped);
    assert!(record.reason.is_some_and(|reason| reason.contains("files are kept")));
    assert_eq!(next.resume(id).await.unwrap().phase, Phase::Ready);
    assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some(""), "it was booted from its disks");
}

#[tokio::test]
async fn a_resume_that_the_host_did_not_outlive_does_not_go_on_from_a_state_that_its_disks_may_be_ahead_of() {
    let halt = Halt::nowhere();
    let (host, manager, id) = with_one(&halt).await;
    host.monitor.let_machines_count();
    manager.call(move |it| async move { it.pause(id).await }).await.unwrap();
    halt.at(ResumeStep::MachineRestored.name());
    assert!(halt.reached_by(manager.call(move |it| async move { it.resume(id).await })).await);
    manager.crash().await;
    let data = host.sandbox(id).join("data.ext4");
    assert_eq!(count_on(&data), Some(1), "its machine has written");
    // The power went: no monitor knows of the machine, and the disk does not show that it was written to.
    File::options().write(true).open(&data).unwrap().set_modified(UNIX_EPOCH).unwrap();
    let restarted = Host::at(&host.base);
    let next = restarted.start().await;
    let record = next.get(id).unwrap();
    assert_eq!(record.phase, Phase::Stopped);
    assert!(record.reason.is_some_and(|reason| reason.contains("files are kept")));
    assert_eq!(next.resume(id).await.unwrap().phase, Phase::Ready);
    assert_eq!((restarted.monitor.booted(), count_on(&data)), (1, Some(1)), "it was booted from its disks");
}

#[tokio::test]
async fn a_stop_that_was_cut_short_comes_to_its_end() {
    for step in HaltStep::ALL {
        let halt = Halt::nowhere();
        let (host, manager, id) = with_one(&halt).await;
        halt.at(step.name());
        host.monitor.kill(&host.sandbox(id));
        assert!(
            halt.reached_by(manager.call(move |it| async move { it.stop(id).await })).await,
            "{step:?} is not passed"
        );
        manager.crash().await;
        let next = host.start().await;
        assert_eq!((next.get(id).unwrap().phase, host.monitor.alive()), (Phase::Stopped, 0), "{step:?}");
        assert_eq!(next.capacity().running, 0, "{step:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_cut_short_leaves_the_machine_running_and_nothing_behind() {
    for step in CopyStep::ALL {
        let halt = Halt::nowhere();
        let (host, manager, id) = with_one(&halt).await;
        halt.at(step.name());
        let new = NewSnapshot { memory: true, ..NewSnapshot::default() };
        let snapshot = manager.call(move |it| async move { it.snapshot(id, new).await });
        assert!(halt.reached_by(snapshot).await, "{step:?} is not passed");
        manager.crash().await;
        let next = host.start().await;
        assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some(REMEMBERED), "{step:?}");
        let whole = usize::from(*step == CopyStep::SnapshotPlaced);
        assert_eq!((next.snapshots().unwrap().len(), host.names("snapshots/named").len()), (whole, whole), "{step:?}");
    }
}

#[tokio::test]
async fn a_removal_that_was_cut_short_comes_to_its_end() {
    for step in RemoveStep::ALL {
        let halt = Halt::nowhere();
        let (host, manager, id) = with_one(&halt).await;
        halt.at(step.name());
        assert!(
            halt.reached_by(manager.call(move |it| async move { it.destroy(id).await })).await,
            "{step:?} is not passed"
        );
        manager.crash().await;
        let next = host.start().await;
        assert_eq!((next.list().len(), host.monitor.alive()), (0, 0), "{step:?}");
        assert!(host.names("sandboxes").is_empty(), "{step:?}");
    }
}

#[tokio::test]
async fn machines_that_run_are_adopted_and_a_record_that_cannot_be_read_is_left_alone() {
    let halt = Halt::nowhere();
    let (host, manager, id) = with_one(&halt).await;
    let (other, _) = manager.call(|it| async move { it.create(NewSandbox::default()).await }).await.unwrap();
    manager.crash().await;
    std::fs::write(host.sandbox(other.id()).join("state.json"), "{").unwrap();
    let next = host.start().await;
    assert_eq!(next.get(id).unwrap().phase, Phase::Ready);
    assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some(REMEMBERED));
    assert!(next.get(other.id()).is_err());
    assert_eq!(host.monitor.alive(), 2, "a machine of a sandbox that cannot be read was ended");
}
