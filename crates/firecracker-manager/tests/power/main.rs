//! A power cut takes nothing from a sandbox that was answered: neither its disks, nor a pause, nor a snapshot. What it
//! ends is named, and no state of processes goes on with the disks of another moment.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

#[path = "../it/guest.rs"]
mod guest;
#[expect(dead_code, reason = "the other suite needs more of it")]
#[path = "../it/monitor.rs"]
mod monitor;
#[expect(dead_code, reason = "the other suite needs more of it")]
#[path = "../it/service.rs"]
mod service;

use std::{collections::HashMap, os::unix::fs::FileExt as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use emergent_firecracker_manager::{NewSandbox, NewSnapshot, Origin, Phase, Record, SandboxId, Sandboxes};
use emergent_test_power::{Cut, Disk, Moment, cuts, run};
use emergent_types::SnapshotId;
use tokio::runtime::Runtime;

use self::{monitor::count_on, service::Host};

/// The offset of ext4's magic number.
const MAGIC_PLACE: u64 = 1080;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// The number of rounds.
const ROUNDS: u64 = 4;

fn main() -> ExitCode {
    run(&[("what_was_answered_is_there_and_what_is_lost_is_named", sandboxes)])
}

/// The state of a sandbox or snapshot from a moment on, as answers have told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The sandbox or snapshot is there.
    There,
    /// The sandbox is paused, and has counted so far.
    PausedAt(u64),
    /// The sandbox or snapshot is being changed, or removed.
    Changing,
    Leaving,
    Gone,
}

/// The states that were known, with their moments.
#[derive(Debug, Default)]
struct Notes {
    sandboxes: HashMap<SandboxId, Vec<(Moment, Known)>>,
    snapshots: HashMap<SnapshotId, (u64, Vec<(Moment, Known)>)>,
}

fn small() -> NewSandbox {
    NewSandbox { disk_mb: Some(16), ..NewSandbox::default() }
}

fn sandboxes() -> Result<()> {
    let runtime = Runtime::new()?;
    let disk = Disk::mount()?;
    let host = Host::at(disk.path());
    host.install();
    disk.settle();
    let mut notes = Notes::default();
    runtime.block_on(async {
        let manager = host.start().await;
        host.monitor.let_machines_count();
        for round in 0..ROUNDS {
            notes.live(&disk, &host, &manager, round).await?;
        }
        manager.shutdown().await;
        anyhow::Ok(())
    })?;
    cuts(&disk, 1, |cut, found| runtime.block_on(notes.check(cut, found)))
}

impl Notes {
    /// One sandbox's life, with a snapshot at each turn.
    async fn live(&mut self, disk: &Disk, host: &Host, manager: &Sandboxes, round: u64) -> Result<()> {
        let (record, _) = manager.create(small()).await?;
        let id = record.id();
        let dir = host.sandbox(id);
        self.note(id, disk.moment(), Known::There);
        let counted = |host: &Host| host.monitor.memory(&dir).unwrap().parse::<u64>();

        let first = self.take(disk, manager, id, counted(host)?, round.is_multiple_of(2)).await?;
        let number = counted(host)?;
        self.note(id, disk.moment(), Known::Changing);
        manager.pause(id).await?;
        self.note(id, disk.moment(), Known::PausedAt(number));
        let second = self.take(disk, manager, id, number, round % 2 == 1).await?;
        self.note(id, disk.moment(), Known::Changing);
        manager.resume(id).await?;
        self.note(id, disk.moment(), Known::There);
        for snapshot in [first, second].into_iter().take(1 + usize::from(round == 1)) {
            self.snapshots.get_mut(&snapshot).unwrap().1.push((disk.moment(), Known::Leaving));
            manager.delete_snapshot(snapshot).await?;
            self.snapshots.get_mut(&snapshot).unwrap().1.push((disk.moment(), Known::Gone));
        }
        // Once more: what the first pause has left is of the past.
        let number = counted(host)?;
        self.note(id, disk.moment(), Known::Changing);
        manager.pause(id).await?;
        self.note(id, disk.moment(), Known::PausedAt(number));
        if round.is_multiple_of(2) {
            self.note(id, disk.moment(), Known::Leaving);
            manager.destroy(id).await?;
            self.note(id, disk.moment(), Known::Gone);
        }
        Ok(())
    }

    async fn take(
        &mut self,
        disk: &Disk,
        manager: &Sandboxes,
        of: SandboxId,
        number: u64,
        memory: bool,
    ) -> Result<SnapshotId> {
        let taken = manager.snapshot(of, NewSnapshot { memory, ..NewSnapshot::default() }).await?;
        let id = taken.snapshot_id.into();
        self.snapshots.insert(id, (number, vec![(disk.moment(), Known::There)]));
        Ok(id)
    }

    fn note(&mut self, id: SandboxId, moment: Moment, known: Known) {
        self.sandboxes.entry(id).or_default().push((moment, known));
    }

    /// Starts the host on what a power cut has left, and holds all that is there against what was answered.
    async fn check(&self, cut: &Cut, found: &Path) -> Result<()> {
        let host = Host::at(found);
        host.monitor.let_machines_count();
        let manager = host.start().await;
        let there: HashMap<_, _> = manager.list().into_iter().map(|record| (record.id(), record)).collect();
        for (id, notes) in &self.sandboxes {
            let known = last(notes, cut.moment);
            match there.get(id) {
                Some(record) => {
                    sandbox(&host, &manager, record, known).await.with_context(|| format!("{known:?} {record:?}"))?
                }
                None => {
                    ensure!(matches!(known, None | Some(Known::Leaving | Known::Gone)), "{id} is missing: {known:?}")
                }
            }
        }
        let taken: HashMap<_, _> =
            manager.snapshots()?.into_iter().map(|info| (SnapshotId::from(info.snapshot_id), info)).collect();
        for (id, (number, notes)) in &self.snapshots {
            let known = last(notes, cut.moment);
            let Some(info) = taken.get(id) else {
                ensure!(
                    matches!(known, None | Some(Known::Leaving | Known::Gone)),
                    "snapshot {id} is missing: {known:?}"
                );
                continue;
            };
            ensure!(known != Some(Known::Gone), "snapshot {id} was deleted and is there");
            // Made from it, the machine counts on.
            let new = NewSandbox { origin: Some(Origin { snapshot: *id, boot: false }), ..NewSandbox::default() };
            let (copy, _) = manager.create(new).await.with_context(|| format!("snapshot {id}"))?;
            whole(&host, copy.id()).with_context(|| format!("made from snapshot {id}"))?;
            let expected = if info.memory { number + 1 } else { 1 };
            ensure!(host.monitor.memory(&host.sandbox(copy.id())) == Some(expected.to_string()), "snapshot {id}");
        }
        // Whatever is left of the template's snapshot.
        let (fresh, _) = manager.create(small()).await.context("no other sandbox can be made")?;
        whole(&host, fresh.id()).context("another sandbox")?;
        manager.shutdown().await;
        Ok(())
    }
}

/// The state that was known last at a moment.
fn last(notes: &[(Moment, Known)], moment: Moment) -> Option<Known> {
    notes.iter().rfind(|(at, _)| *at <= moment).map(|(_, known)| *known)
}

/// A sandbox that was found: its phase is one that may be, and it goes on.
async fn sandbox(host: &Host, manager: &Sandboxes, record: &Record, known: Option<Known>) -> Result<()> {
    match (record.phase, known) {
        (_, Some(Known::Gone)) => bail!("it was removed and is there"),
        (Phase::Paused, _) => {}
        (Phase::Stopped, Some(Known::PausedAt(_))) => bail!("it was paused, and its processes are lost"),
        (Phase::Stopped, _) => ensure!(record.reason.is_some(), "nobody says why it stopped"),
        (Phase::Destroying, _) => return Ok(()),
        (phase, _) => bail!("it is {phase:?}"),
    }
    let dir = host.sandbox(record.id());
    let on_disk = count_on(&dir.join("data.ext4"));
    manager.resume(record.id()).await.context("it does not go on")?;
    whole(host, record.id())?;
    if record.phase == Phase::Paused {
        let number: u64 = host.monitor.memory(&dir).context("no machine runs")?.parse()?;
        ensure!(Some(number - 1) == on_disk, "its memory has counted to {}, its disk says {on_disk:?}", number - 1);
        if let Some(Known::PausedAt(paused)) = known {
            ensure!(number - 1 == paused, "it had counted to {paused}, and goes on from {}", number - 1);
        }
    }
    Ok(())
}

/// The disks of a sandbox whose machine has begun: there is a file system on each, and its number is its memory's.
fn whole(host: &Host, id: SandboxId) -> Result<()> {
    let dir = host.sandbox(id);
    let mut magic = [0; 2];
    std::fs::File::open(dir.join("data.ext4"))?.read_exact_at(&mut magic, MAGIC_PLACE)?;
    ensure!(magic == MAGIC, "its disk has no file system");
    let mut root = [0; 8];
    std::fs::File::open(dir.join("rootfs.ext4"))?.read_exact_at(&mut root, 0)?;
    ensure!(&root == b"contents", "its root is not its template's");
    let memory = host.monitor.memory(&dir).context("no machine runs")?;
    let on_disk = count_on(&dir.join("data.ext4"));
    ensure!(on_disk.map(|number| number.to_string()) == Some(memory.clone()), "memory {memory}, disk {on_disk:?}");
    Ok(())
}
