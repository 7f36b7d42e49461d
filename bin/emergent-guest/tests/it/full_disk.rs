//! A disk without space: the guest starts on it all the same, and nothing that it has recorded is lost.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use emergent_guest_proto::{Outcome, Usage, tools::BashResult};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::support::{Client, Guest, eventually};

/// A file system in memory, for a guest and its workspace.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a word about it, where none can be mounted.
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        match rustix::mount::mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), Some(c"size=4m,mode=755")) {
            Ok(()) => Some(Self(place)),
            Err(error) => {
                eprintln!("skipped: no file system can be mounted: {error}");
                None
            }
        }
    }

    fn directory(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.0.path()).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Takes all the space that is left.
fn fill(file: &Path) {
    let filled = io::copy(&mut io::repeat(b'x'), &mut File::create(file).unwrap());
    assert_eq!(filled.unwrap_err().kind(), io::ErrorKind::StorageFull);
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guest_starts_on_a_full_disk_and_loses_no_record() {
    let Some(disk) = SmallDisk::mount() else { return };
    let Some(mut guest) = Guest::start_in(disk.directory(), &[]).await else { return };
    let client = guest.client().await;
    let configuration = json!({"defaults": {"authorities": "-- ours --"}});
    client.configure(configuration.clone()).await;
    let before: BashResult =
        client.tool("bash", json!({"execution_id": "before", "command": "echo kept; exit 3"})).await.unwrap();
    client.start(json!({"execution_id": "unfinished", "program": "exec sleep 4711.6"})).await;
    let reserve = guest.state().join("executions.reserve");
    eventually("there is a reserve", || std::future::ready(reserve.exists().then_some(()))).await;
    assert_eq!(client.get::<Usage>("/v1/usage").await.unwrap().problem, None);

    fill(&guest.workspace().join("fill"));
    guest.restart_after_kill().await;
    let client = guest.client().await;
    assert_eq!(client.wait("before").await, before);
    assert_eq!(client.wait("unfinished").await.outcome, Outcome::Lost);
    run(&client, 0..20).await;
    let journal = guest.state().join("executions.jsonl");
    let recorded = |record: &str| fs::read_to_string(&journal).unwrap().contains(record).then_some(());
    let last = r#""id":"during-19","ending""#;
    eventually("the reserve has the records", || std::future::ready(recorded(last))).await;
    assert!(!reserve.exists());

    // Now there is no space at all, and what is recorded waits.
    fill(&guest.workspace().join("more"));
    guest.restart_after_kill().await;
    let client = guest.client().await;
    // As whoever starts a machine does each time.
    client.configure(configuration).await;
    run(&client, 20..40).await;
    let problem = client.get::<Usage>("/v1/usage").await.unwrap().problem.unwrap();
    assert!(problem.contains("no space is left") && problem.contains("remove files"), "{problem}");
    for name in ["fill", "more"] {
        client.post::<Value>("/v1/files/remove", &json!({"path": name})).await.unwrap();
    }
    let solved = || async { client.get::<Usage>("/v1/usage").await.unwrap().problem.is_none().then_some(()) };
    eventually("there is no problem any more", solved).await;
    assert!(reserve.exists());

    guest.restart_after_kill().await;
    let client = guest.client().await;
    assert_eq!(client.wait("before").await, before);
    assert_eq!(client.wait("unfinished").await.outcome, Outcome::Lost);
    for number in 0..40 {
        assert_eq!(client.wait(&format!("during-{number}")).await.exit_code, Some(5));
    }
}

/// Runs commands of which nobody would say that they are short.
async fn run(client: &Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let command = format!(": {}; exit 5", "x".repeat(900));
        let body = json!({"execution_id": format!("during-{number}"), "command": command});
        assert_eq!(client.tool::<BashResult>("bash", body).await.unwrap().exit_code, Some(5));
    }
}
