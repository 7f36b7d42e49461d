//! The usual course of things, and the ways in which it fails.

use std::time::Duration;

use emergent_firecracker_manager::{
    NetworkWord, NewSandbox, NewSnapshot, Origin, Phase, SandboxError, Sandboxes, admission::NoRoom,
};
use futures::future::join_all;

use crate::service::{DEADLINE, Host};

/// Waits until something holds of all sandboxes.
async fn until(manager: &Sandboxes, holds: impl Fn(&Sandboxes) -> bool) {
    let wait = async {
        while !holds(manager) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    assert!(waited.is_ok(), "in vain, with {:?}", manager.list());
}

fn named(name: &str) -> NewSandbox {
    NewSandbox { workspace_id: Some(name.to_owned()), ..NewSandbox::default() }
}

#[tokio::test]
async fn the_same_workspace_id_leads_to_the_same_sandbox_in_whatever_state_it_is() {
    let host = Host::new();
    let manager = host.start().await;
    let (first, made) = manager.create(named("mine")).await.unwrap();
    assert!(made);
    host.monitor.remember(&host.sandbox(first.id()), "this");
    manager.pause(first.id()).await.unwrap();
    let (again, made) = manager.create(named("mine")).await.unwrap();
    assert_eq!((again.id(), again.phase, made), (first.id(), Phase::Ready, false));
    assert_eq!(host.monitor.memory(&host.sandbox(first.id())).as_deref(), Some("this"));
    host.monitor.kill(&host.sandbox(first.id()));
    assert_eq!(manager.stop(first.id()).await.unwrap().phase, Phase::Stopped);
    let (again, made) = manager.create(named("mine")).await.unwrap();
    assert_eq!((again.id(), again.phase, made), (first.id(), Phase::Ready, false));
}

#[tokio::test]
async fn of_many_creates_with_one_workspace_id_one_makes_it() {
    let host = Host::new();
    let manager = host.start().await;
    let results = join_all((0..10).map(|_| manager.create(named("one")))).await;
    let made = results.iter().filter(|result| result.as_ref().is_ok_and(|(_, made)| *made)).count();
    assert_eq!((made, manager.list().len(), host.monitor.alive()), (1, 1, 1));
}

#[tokio::test]
async fn twenty_creates_at_once_take_no_more_than_there_is() {
    let mut host = Host::new();
    host.budget.machines = 7;
    let manager = host.start().await;
    let results = join_all((0..20).map(|_| manager.create(NewSandbox::default()))).await;
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), host.monitor.alive(), host.names("sandboxes").len()), (7, 7, 7));
    let full = |error: &SandboxError| matches!(error, SandboxError::NoRoom(NoRoom::Machines { limit: 7 }));
    assert!(refused.iter().all(|result| result.as_ref().err().is_some_and(full)));
    let id = manager.list()[0].id();
    manager.destroy(id).await.unwrap();
    assert!(manager.create(NewSandbox::default()).await.is_ok(), "a place that was given back is not free");
}

#[tokio::test]
async fn a_paused_sandbox_takes_no_memory_and_waits_for_some_to_go_on() {
    let mut host = Host::new();
    host.budget.memory_mib = 600;
    let manager = host.start().await;
    let (first, _) = manager.create(NewSandbox::default()).await.unwrap();
    assert!(matches!(manager.create(NewSandbox::default()).await, Err(SandboxError::NoRoom(NoRoom::Memory { .. }))));
    manager.pause(first.id()).await.unwrap();
    let (second, _) = manager.create(NewSandbox::default()).await.unwrap();
    assert!(matches!(manager.resume(first.id()).await, Err(SandboxError::NoRoom(_))));
    assert_eq!(manager.get(first.id()).unwrap().phase, Phase::Paused);
    manager.destroy(second.id()).await.unwrap();
    assert_eq!(manager.resume(first.id()).await.unwrap().phase, Phase::Ready);
}

#[tokio::test]
async fn a_full_disk_leaves_the_machine_running_and_nothing_behind() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    let id = record.id();
    host.monitor.remember(&host.sandbox(id), "this");
    host.monitor.fill_disk(true);
    assert!(matches!(manager.pause(id).await, Err(SandboxError::DiskFull { .. })));
    let memory = NewSnapshot { memory: true, ..NewSnapshot::default() };
    assert!(matches!(manager.snapshot(id, memory.clone()).await, Err(SandboxError::DiskFull { .. })));
    assert_eq!(manager.get(id).unwrap().phase, Phase::Ready);
    assert_eq!(host.monitor.memory(&host.sandbox(id)).as_deref(), Some("this"));
    assert_eq!(host.names("snapshots"), ["named"]);
    assert!(host.names("snapshots/named").is_empty());
    host.monitor.fill_disk(false);
    assert_eq!(manager.pause(id).await.unwrap().phase, Phase::Paused);
}

#[tokio::test]
async fn a_clock_that_stood_still_is_set_whatever_it_stood_still_for() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    let id = record.id();
    assert_eq!(host.monitor.late(), 0, "after the template's snapshot");
    manager.create(NewSandbox::default()).await.unwrap();
    assert_eq!(host.monitor.late(), 0, "made from the template's snapshot");
    for memory in [false, true] {
        manager.snapshot(id, NewSnapshot { memory, ..NewSnapshot::default() }).await.unwrap();
        assert_eq!(host.monitor.late(), 0, "after a snapshot, memory: {memory}");
    }
    manager.fork(id, NewSandbox::default()).await.unwrap();
    assert_eq!(host.monitor.late(), 0, "after a fork");
    host.monitor.fill_disk(true);
    manager.pause(id).await.unwrap_err();
    assert_eq!(host.monitor.late(), 0, "after a pause that failed");
    host.monitor.fill_disk(false);
    manager.pause(id).await.unwrap();
    manager.resume(id).await.unwrap();
    assert_eq!(host.monitor.late(), 0, "after a pause");
}

#[tokio::test]
async fn what_a_guest_has_not_written_before_a_pause_is_not_missing_in_a_copy() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    let id = record.id();
    host.monitor.fail_syncs(true);
    assert_eq!(manager.pause(id).await.unwrap().phase, Phase::Paused);
    manager.shutdown().await;
    drop(manager);
    let manager = host.start().await;
    for memory in [false, true] {
        let refused = manager.snapshot(id, NewSnapshot { memory, ..NewSnapshot::default() }).await.unwrap_err();
        assert!(matches!(&refused, SandboxError::Taken(why) if why.contains("resume")), "{refused:?}");
    }
    host.monitor.fail_syncs(false);
    manager.resume(id).await.unwrap();
    manager.pause(id).await.unwrap();
    manager.snapshot(id, NewSnapshot::default()).await.unwrap();
}

#[tokio::test]
async fn forks_begin_with_the_memory_of_a_snapshot_or_with_its_files_alone() {
    let host = Host::new();
    let manager = host.start().await;
    // The file that stands for the disk is as long as the disk, once that has been looked at.
    let small = NewSandbox { disk_mb: Some(16), ..NewSandbox::default() };
    let (parent, _) = manager.create(small).await.unwrap();
    host.monitor.remember(&host.sandbox(parent.id()), "this");
    std::fs::write(host.sandbox(parent.id()).join("data.ext4"), "files").unwrap();
    let taken = NewSnapshot { memory: true, ..NewSnapshot::default() };
    let taken = manager.snapshot(parent.id(), taken).await.unwrap();
    for (boot, remembered) in [(false, "this"), (true, "")] {
        let origin = Some(Origin { snapshot: taken.snapshot_id.into(), boot });
        let (fork, _) = manager.create(NewSandbox { origin, ..NewSandbox::default() }).await.unwrap();
        assert_eq!(host.monitor.memory(&host.sandbox(fork.id())).as_deref(), Some(remembered), "{boot}");
        assert!(std::fs::read(host.sandbox(fork.id()).join("data.ext4")).unwrap().starts_with(b"files"), "{boot}");
    }
    manager.delete_snapshot(taken.snapshot_id.into()).await.unwrap();
    manager.delete_snapshot(taken.snapshot_id.into()).await.unwrap();
    assert!(manager.snapshots().unwrap().is_empty());
    assert_eq!(host.monitor.alive(), 3, "what was made from the snapshot goes on without it");
}

#[tokio::test]
async fn a_machine_that_ends_by_itself_stops_its_sandbox_and_gives_its_place_back() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    host.monitor.kill(&host.sandbox(record.id()));
    until(&manager, |manager| manager.list()[0].phase == Phase::Stopped).await;
    assert!(manager.list()[0].reason.as_deref().is_some_and(|reason| reason.contains("killed")));
    until(&manager, |manager| manager.capacity().running == 0).await;
    assert_eq!(manager.resume(record.id()).await.unwrap().phase, Phase::Ready);
}

#[tokio::test]
async fn a_life_that_is_over_ends() {
    let host = Host::new();
    let manager = host.start().await;
    let short = NewSandbox { ttl: Some(Duration::from_millis(50)), ..NewSandbox::default() };
    manager.create(short).await.unwrap();
    until(&manager, |manager| manager.list().is_empty()).await;
    assert!(host.names("sandboxes").is_empty());
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let host = Host::new();
    let manager = host.start().await;
    let missing = NewSandbox { template: Some("other".to_owned()), ..NewSandbox::default() };
    assert!(matches!(manager.create(missing).await, Err(SandboxError::TemplateMissing { .. })));
    let outside = NewSandbox { template: Some("../default".to_owned()), ..NewSandbox::default() };
    assert!(matches!(manager.create(outside).await, Err(SandboxError::Invalid { field: "template", .. })));
    let online = NewSandbox { network: Some(NetworkWord::Outbound), ..NewSandbox::default() };
    assert!(matches!(manager.create(online).await, Err(SandboxError::Invalid { field: "network", .. })));
    assert!(manager.list().is_empty() && host.names("sandboxes").is_empty());
}

#[tokio::test]
async fn two_managers_do_not_share_a_directory() {
    let host = Host::new();
    let _manager = host.start().await;
    let parts = emergent_firecracker_manager::Parts {
        vmm: std::sync::Arc::new(crate::monitor::Driver(std::sync::Arc::clone(&host.monitor))),
        network: std::sync::Arc::new(emergent_firecracker_manager::NoInterfaces { reason: String::new() }),
        checkpoint: emergent_firecracker_manager::step::unhindered(),
    };
    let second = Sandboxes::start(emergent_firecracker_manager::ManagerConfig::new(host.path("")), parts).await;
    assert!(matches!(second, Err(emergent_firecracker_manager::StartError::Taken(_))));
}

#[tokio::test]
async fn disks_have_the_size_that_was_asked_for_and_become_no_smaller() {
    let host = Host::new();
    let manager = host.start().await;
    let sized = |disk, origin| NewSandbox { disk_mb: Some(disk), origin, ..NewSandbox::default() };
    let disks = async |new: NewSandbox| {
        let record = manager.create(new).await?.0;
        let length = |name| host.sandbox(record.id()).join(name).metadata().unwrap().len() >> 20;
        let (root, data) = (length("rootfs.ext4"), length("data.ext4"));
        Ok::<_, SandboxError>((record, root, data))
    };
    let (first, root, data) = disks(sized(64, None)).await.unwrap();
    assert_eq!((root, data), (64, 64));
    let snapshot = manager.snapshot(first.id(), NewSnapshot { memory: true, ..NewSnapshot::default() }).await.unwrap();
    let from = |boot| Some(Origin { snapshot: snapshot.snapshot_id.into(), boot });
    for (asked, size) in [(128, 128), (32, 64)] {
        let (record, root, data) = disks(sized(asked, from(true))).await.unwrap();
        assert_eq!((record.disk_mb, root, data), (size, size, size));
    }
    // What runs knows its disks.
    let refused = disks(sized(128, from(false))).await;
    assert!(matches!(refused, Err(SandboxError::Invalid { field: "disk_mb", .. })), "{refused:?}");
    assert_eq!(disks(sized(64, from(false))).await.unwrap().1, 64);
}

#[tokio::test]
async fn a_machine_that_does_not_go_on_is_told_again_and_its_sandbox_never_seems_to_run_when_it_does_not() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox::default()).await.unwrap();
    // A monitor that answers late.
    host.monitor.fail_thaws(2);
    manager.snapshot(record.id(), NewSnapshot::default()).await.unwrap();
    assert_eq!((manager.get(record.id()).unwrap().phase, host.monitor.frozen()), (Phase::Ready, 0));
    // One that never does.
    host.monitor.fail_thaws(usize::MAX);
    manager.snapshot(record.id(), NewSnapshot::default()).await.unwrap_err();
    let after = manager.get(record.id()).unwrap();
    assert_eq!((after.phase, host.monitor.alive()), (Phase::Stopped, 0));
    assert!(after.reason.is_some_and(|reason| reason.contains("did not go on after a snapshot")), "no reason");
    assert_eq!(manager.snapshots().unwrap().len(), 1, "the second snapshot failed");
    // And one that answers again when nobody has asked it for a while.
    host.monitor.fail_thaws(0);
    manager.resume(record.id()).await.unwrap();
    host.monitor.freeze(&host.sandbox(record.id()));
    until(&manager, |_| host.monitor.frozen() == 0).await;
    assert_eq!(manager.get(record.id()).unwrap().phase, Phase::Ready);
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_was_written_is_refused_by_its_name() {
    let host = Host::new();
    let manager = host.start().await;
    let (record, _) = manager.create(NewSandbox { disk_mb: Some(16), ..NewSandbox::default() }).await.unwrap();
    for file in ["rootfs.ext4", "data.ext4"] {
        for hollow in [false, true] {
            let taken = manager.snapshot(record.id(), NewSnapshot::default()).await.unwrap();
            let path = host.path("snapshots/named").join(taken.snapshot_id.to_string()).join(file);
            // A disk that shares its blocks with the original is not read for a checksum.
            let description = std::fs::read_to_string(path.with_file_name("snapshot.json")).unwrap();
            if hollow && !description.contains("crc32") {
                continue;
            }
            let disk = std::fs::File::options().write(true).open(&path).unwrap();
            let length = disk.metadata().unwrap().len();
            disk.set_len(0).unwrap();
            if hollow {
                disk.set_len(length).unwrap();
            }
            let origin = Some(Origin { snapshot: taken.snapshot_id.into(), boot: true });
            let made = manager.create(NewSandbox { origin, ..NewSandbox::default() }).await;
            let Err(SandboxError::SnapshotDamaged { snapshot, reason }) = made else { panic!("{file}: {made:?}") };
            assert_eq!(snapshot.as_uuid(), taken.snapshot_id);
            assert!(reason.starts_with(&format!("{file}: it")), "{reason}");
            manager.delete_snapshot(snapshot).await.unwrap();
        }
    }
    assert_eq!(manager.list().len(), 1, "what was refused left something");
}
