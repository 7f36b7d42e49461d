//! Snapshots of templates: what begins with one, what makes one useless, and that none is needed.

use emergent_firecracker_manager::{NewSandbox, Phase, Sandboxes};
use futures::future::join_all;

use crate::service::Host;

/// Makes a sandbox; answers how many machines have booted by then.
async fn create(host: &Host, manager: &Sandboxes, new: NewSandbox) -> usize {
    let (record, made) = manager.create(new).await.unwrap();
    assert!(made && record.phase == Phase::Ready);
    assert_eq!(host.monitor.frozen(), 0, "a machine was left frozen");
    host.monitor.booted()
}

/// The directory of the only snapshot of a template.
fn only(host: &Host) -> std::path::PathBuf {
    let names = host.names("template-snapshots");
    assert_eq!(names.len(), 1, "{names:?}");
    host.path("template-snapshots").join(&names[0])
}

#[tokio::test]
async fn the_first_of_a_kind_boots_and_the_next_begin_with_its_snapshot() {
    let host = Host::new();
    let manager = host.start().await;
    // Read whole, twice.
    let small = || NewSandbox { disk_mb: Some(16), ..NewSandbox::default() };
    assert_eq!(create(&host, &manager, small()).await, 1);
    let files = std::fs::read(only(&host).join("data.ext4")).unwrap();
    let first = manager.list()[0].id();
    host.monitor.remember(&host.sandbox(first), "the first one's");
    std::fs::write(host.sandbox(first).join("data.ext4"), "the first one's").unwrap();
    for _ in 0..2 {
        assert_eq!(create(&host, &manager, small()).await, 1);
        let last = manager.list().last().unwrap().id();
        assert_eq!(host.monitor.memory(&host.sandbox(last)).as_deref(), Some(""), "it has another's memory");
        assert!(std::fs::read(host.sandbox(last).join("data.ext4")).unwrap() == files, "it has another's files");
    }
    // Another size is another kind, and a server that starts anew finds what there is.
    let large = || NewSandbox { memory_mb: Some(1024), ..NewSandbox::default() };
    assert_eq!(create(&host, &manager, large()).await, 2);
    manager.shutdown().await;
    drop(manager);
    let next = host.start().await;
    assert_eq!(create(&host, &next, large()).await, 2);
    assert_eq!(host.names("template-snapshots").len(), 2);
}

#[tokio::test]
async fn what_is_damaged_is_removed_and_taken_anew() {
    let host = Host::new();
    let manager = host.start().await;
    assert_eq!(create(&host, &manager, NewSandbox::default()).await, 1);
    for file in ["state/memory", "data.ext4", "template.json"] {
        let booted = host.monitor.booted();
        std::fs::remove_file(only(&host).join(file)).unwrap();
        assert_eq!(create(&host, &manager, NewSandbox::default()).await, booted + 1, "{file}");
        assert!(only(&host).join(file).is_file(), "{file} was not made again");
        assert_eq!(create(&host, &manager, NewSandbox::default()).await, booted + 1, "{file}");
    }
}

#[tokio::test]
async fn another_root_kernel_or_guest_makes_it_useless() {
    let host = Host::new();
    let manager = host.start().await;
    assert_eq!(create(&host, &manager, NewSandbox::default()).await, 1);
    // The note has the contents of kernel and guest in it.
    for (booted, file) in [(2, "rootfs/default-rootfs.ext4"), (3, "kernels/default-kernel.json")] {
        let before = only(&host);
        std::fs::write(host.path("new"), format!("other contents for {file}")).unwrap();
        std::fs::rename(host.path("new"), host.path(file)).unwrap();
        assert_eq!(create(&host, &manager, NewSandbox::default()).await, booted, "{file}");
        assert_ne!(only(&host), before, "the old one stays beside the new one");
    }
}

#[tokio::test]
async fn as_many_as_may_be_are_kept_and_the_one_that_was_used_last_is_among_them() {
    let host = Host { template_snapshots: 2, ..Host::new() };
    let manager = host.start().await;
    let sized = |memory| NewSandbox { memory_mb: Some(memory), ..NewSandbox::default() };
    for (memory, booted) in [(256, 1), (512, 2), (256, 2), (1024, 3), (256, 3), (512, 4)] {
        assert_eq!(create(&host, &manager, sized(memory)).await, booted, "{memory} MiB");
        assert!(host.names("template-snapshots").len() <= 2);
    }
}

#[tokio::test]
async fn where_they_are_switched_off_everything_boots_and_none_is_left() {
    let mut host = Host::new();
    let manager = host.start().await;
    assert_eq!(create(&host, &manager, NewSandbox::default()).await, 1);
    manager.shutdown().await;
    drop(manager);
    host.template_snapshots = 0;
    let manager = host.start().await;
    assert!(host.names("template-snapshots").is_empty());
    for booted in [2, 3] {
        assert_eq!(create(&host, &manager, NewSandbox::default()).await, booted);
    }
    assert!(host.names("template-snapshots").is_empty());
}

#[tokio::test]
async fn many_that_come_at_once_take_one_and_a_full_disk_takes_none() {
    let host = Host::new();
    let manager = host.start().await;
    host.monitor.fill_disk(true);
    assert_eq!(create(&host, &manager, NewSandbox::default()).await, 1);
    assert!(host.names("template-snapshots").is_empty());
    host.monitor.fill_disk(false);
    let made = join_all((0..10).map(|_| manager.create(NewSandbox::default()))).await;
    assert!(made.iter().all(Result::is_ok));
    only(&host);
    assert_eq!((host.monitor.alive(), host.monitor.frozen()), (11, 0));
}
