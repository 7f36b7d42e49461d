//! Snapshots that are asked for: a sandbox's disks as of one moment, with the state of its processes where that was
//! asked for. Any number of sandboxes begin with one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use emergent_guest_proto::{RunAs, tools::BashRequest};
use emergent_microvm::{Disk, Seal, durable};
use emergent_types::{SnapshotId, error_chain};
use serde::{Deserialize, Serialize};

use super::{
    Inner, SYNC_DEADLINE, Sandboxes,
    disk_files::{broken, copy_disk, keep_disk},
    entry::Entry,
    fresh_directory, on_disk,
    pause::saving,
    place, remove_directory,
};
use crate::{
    SandboxError, SandboxId,
    record::{NetworkWord, Phase, Record, RootFormat},
    request::{NewSandbox, Origin},
    step::CopyStep,
};

/// The version of the file's form.
const VERSION: u32 = 1;
/// The disks of a snapshot.
const ROOT: &str = "rootfs.ext4";
const DATA: &str = "data.ext4";

/// Marks the snapshot of a fork that is being made: nobody else asked for it.
const FORK_LABEL: &str = "emergent.fork";

/// The description of a snapshot: `snapshot.json` beside its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    version: u32,
    /// The snapshot's id.
    pub snapshot_id: uuid::Uuid,
    /// Of which sandbox.
    pub sandbox_id: uuid::Uuid,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// The snapshot has the state of processes, besides the disks.
    pub memory: bool,
    /// The template that the sandbox was made from.
    pub template: String,
    /// Memory of the guest, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpu_count: u8,
    /// Size of the disk for `/workspace`, in MiB, and of the root file system where its template has less.
    pub disk_mb: u64,
    /// The network that the sandbox may reach.
    pub network: NetworkWord,
    /// How the root disk is written.
    #[serde(default)]
    pub root_format: RootFormat,
    /// The taker's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Bytes that the root disk takes on the host.
    pub root_bytes: u64,
    /// Bytes that the disk for `/workspace` takes on the host.
    pub workspace_bytes: u64,
    /// The seals of the disks when they were put here. Snapshots of earlier versions have none.
    #[serde(default)]
    disks: BTreeMap<String, Seal>,
}

/// A snapshot to take.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// The snapshot's id, where the caller needs a certain one.
    pub id: Option<SnapshotId>,
    /// Keep the state of processes, too. Needs a sandbox that runs or is paused.
    pub memory: bool,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
}

/// A snapshot that a sandbox begins with, kept from being deleted meanwhile.
pub(super) struct Basis {
    inner: Arc<Inner>,
    info: SnapshotInfo,
    boot: bool,
}

// === impl Basis ===

impl Basis {
    pub(super) fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    pub(super) fn has_state(&self) -> bool {
        self.info.memory && !self.boot
    }

    /// Compares the disks with what was written. The driver compares the state with its own manifest.
    pub(super) async fn check(&self) -> Result<(), SandboxError> {
        match broken(&self.directory(), &self.info.disks).await? {
            Some(reason) => Err(SandboxError::SnapshotDamaged { snapshot: self.info.snapshot_id.into(), reason }),
            None => Ok(()),
        }
    }

    /// The root disk.
    pub(super) fn disk(&self) -> Disk {
        Disk { format: self.info.root_format.into(), ..Disk::raw(self.directory().join(ROOT)) }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory().join(DATA)
    }

    /// The state of processes, where that is to go on.
    pub(super) fn state(&self) -> Option<PathBuf> {
        self.has_state().then(|| self.directory().join("state"))
    }

    fn directory(&self) -> PathBuf {
        self.inner.layout.named(self.info.snapshot_id.into())
    }
}

impl Drop for Basis {
    fn drop(&mut self) {
        let mut in_use = self.inner.in_use.lock();
        let id = self.info.snapshot_id.into();
        if let Some(users) = in_use.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                in_use.remove(&id);
            }
        }
    }
}

// === impl Sandboxes ===

impl Sandboxes {
    /// Takes a snapshot. A sandbox that runs stands still meanwhile, and goes on; any other stays as it is. On an error
    /// nothing of the snapshot is left.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn snapshot(&self, sandbox: SandboxId, new: NewSnapshot) -> Result<SnapshotInfo, SandboxError> {
        let (inner, entry) = (Arc::clone(&self.0), self.0.entry(sandbox)?);
        self.run(async move {
            let _turn = entry.turn().await;
            let id = new.id.unwrap_or_else(SnapshotId::generate);
            if inner.layout.named(id).exists() {
                return Err(SandboxError::Taken(format!("there is a snapshot {id} already")));
            }
            let taken = inner.copy(&entry, id, &new).await;
            if taken.is_err() {
                remove_directory(&inner.layout.taking(id)).await?;
            }
            taken
        })
        .await
    }

    /// Makes another sandbox that begins where this one is, processes and all; this one goes on. What `new` leaves out
    /// is as it is here.
    ///
    /// # Errors
    /// [`SandboxError`]; nothing is left then.
    pub async fn fork(&self, sandbox: SandboxId, new: NewSandbox) -> Result<Record, SandboxError> {
        if new.origin.is_some() {
            let message = "a fork begins with the sandbox that the path names; leave it out".to_owned();
            return Err(SandboxError::Invalid { field: "snapshot_id", message });
        }
        new.check()?;
        let labels = [(FORK_LABEL.to_owned(), sandbox.to_string())].into();
        let taken = self.snapshot(sandbox, NewSnapshot { id: None, memory: true, labels }).await?;
        let id = SnapshotId::from(taken.snapshot_id);
        let origin = Some(Origin { snapshot: id, boot: false });
        let made = self.create(NewSandbox { origin, ..new }).await;
        if let Err(error) = self.delete_snapshot(id).await {
            tracing::warn!(snapshot = %id, reason = error_chain(&error), "the snapshot of a fork is left; the next start removes it");
        }
        match made? {
            (record, true) => Ok(record),
            (record, false) => {
                let taken = format!("the workspace_id is {}'s; a fork needs one of its own, or none", record.id());
                Err(SandboxError::Taken(taken))
            }
        }
    }

    /// Every snapshot that was asked for, the oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, SandboxError> {
        let directory = self.0.layout.named_snapshots();
        let entries =
            std::fs::read_dir(&directory).map_err(SandboxError::io("the listing of snapshots", &directory))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<SnapshotId>().ok());
            if let Some(id) = id {
                found.extend(self.0.snapshot_info(id).ok());
            }
        }
        found.sort_by_key(|info| (info.created_at, info.snapshot_id));
        Ok(found)
    }

    /// Deletes a snapshot; that there is none is no error. Sandboxes that were made from it go on.
    ///
    /// # Errors
    /// [`SandboxError::Taken`] while a sandbox is being made from it.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), SandboxError> {
        let inner = Arc::clone(&self.0);
        self.run(async move {
            if inner.in_use.lock().contains_key(&id) {
                return Err(SandboxError::Taken("a sandbox is being made from the snapshot; try again".to_owned()));
            }
            // Out of sight first, for good: half of one is then never taken for a whole one.
            let (whole, partial) = (inner.layout.named(id), inner.layout.taking(id));
            let (from, to) = (whole.clone(), partial.clone());
            match on_disk(move || durable::rename(&from, &to)).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SandboxError::io("the removal of a snapshot", &whole)(error));
                }
                Ok(()) | Err(_) => {}
            }
            remove_directory(&partial).await
        })
        .await
    }

    /// Finds a snapshot for a sandbox to begin with.
    pub(super) fn basis(&self, origin: Origin) -> Result<Basis, SandboxError> {
        *self.0.in_use.lock().entry(origin.snapshot).or_default() += 1;
        // From here on nobody deletes it; a basis that is dropped gives it free again.
        let placeholder = SnapshotInfo::nothing(origin.snapshot);
        let mut basis = Basis { inner: Arc::clone(&self.0), info: placeholder, boot: origin.boot };
        basis.info = self.0.snapshot_info(origin.snapshot)?;
        Ok(basis)
    }
}

// === impl Inner ===

impl Inner {
    fn snapshot_info(&self, id: SnapshotId) -> Result<SnapshotInfo, SandboxError> {
        let path = self.layout.named(id).join("snapshot.json");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SandboxError::SnapshotNotFound(id));
            }
            read => read.map_err(SandboxError::io("the reading of a snapshot", &path))?,
        };
        let info = serde_json::from_slice::<SnapshotInfo>(&bytes).map_err(|error| SandboxError::SnapshotDamaged {
            snapshot: id,
            reason: format!("its description makes no sense: {error}"),
        })?;
        if info.version == VERSION && info.snapshot_id == id.as_uuid() {
            return Ok(info);
        }
        let foreign = std::io::Error::other("another version wrote it, or it was copied from another snapshot");
        Err(SandboxError::io("the reading of a snapshot", &path)(foreign))
    }

    async fn copy(&self, entry: &Entry, id: SnapshotId, new: &NewSnapshot) -> Result<SnapshotInfo, SandboxError> {
        let phase = entry.phase();
        match (phase, new.memory) {
            // A sandbox wrote what it held to its disks before it was paused, or is noted not to have.
            (Phase::Ready | Phase::Paused, _) | (Phase::Stopped, false) => {}
            (phase, _) => return Err(SandboxError::WrongState { operation: "be copied", phase }),
        }
        if phase == Phase::Paused && entry.record().unsynced {
            let why = "the sandbox was paused while its guest could not write its caches to its disks, so a copy could lack \
                       what was written last; resume it and try again";
            return Err(SandboxError::Taken(why.to_owned()));
        }
        let taking = self.layout.taking(id);
        fresh_directory(&taking).await?;
        self.pass(CopyStep::DirectoryMade.name()).await;
        if phase == Phase::Ready {
            self.sync(entry).await?;
            let frozen = self.vmm.freeze(&self.directory(entry)).await;
            frozen.map_err(SandboxError::vmm("freeze the machine"))?;
        }
        self.pass(CopyStep::MachineFrozen.name()).await;
        let copied = self.copy_frozen(entry, &taking, phase, new.memory).await;
        self.pass(CopyStep::Copied.name()).await;
        if phase == Phase::Ready {
            // Before what has failed is looked at: the machine goes on in any case.
            self.thaw_or_stop(entry, "a snapshot").await?;
        }
        self.pass(CopyStep::MachineThawed.name()).await;
        let info = self.describe(entry, id, new, &taking, copied?);
        let path = taking.join("snapshot.json");
        let text = serde_json::to_vec_pretty(&info).map_err(std::io::Error::from);
        let written = text.and_then(|text| durable::write(&path, &text));
        written.map_err(SandboxError::io("the writing of a snapshot", &path))?;
        place(&taking, &self.layout.named(id)).await?;
        self.pass(CopyStep::SnapshotPlaced.name()).await;
        Ok(info)
    }

    /// Copies what stands still; answers the seals of the disks. All of it is on the host's disk then.
    async fn copy_frozen(
        &self,
        entry: &Entry,
        into: &Path,
        phase: Phase,
        memory: bool,
    ) -> Result<BTreeMap<String, Seal>, SandboxError> {
        let root = Disk { format: entry.record().root_format.into(), ..Disk::raw(self.layout.root_disk(entry.id)) };
        let root = keep_disk(root, into.join(ROOT)).await?;
        let data = keep_disk(Disk::raw(self.layout.data_disk(entry.id)), into.join(DATA)).await?;
        let disks = [(ROOT.to_owned(), root), (DATA.to_owned(), data)].into();
        if !memory {
            return Ok(disks);
        }
        let state = into.join("state");
        fresh_directory(&state).await?;
        if phase == Phase::Ready {
            let saved = self.vmm.save(&self.directory(entry), &state).await;
            return saved.map(|()| disks).map_err(|error| saving(error, &state));
        }
        let paused = self.layout.paused(entry.id);
        let files = std::fs::read_dir(&paused).map_err(SandboxError::io("the reading of a state", &paused))?;
        for file in files.flatten() {
            copy_disk(Disk::raw(file.path()), state.join(file.file_name())).await?;
        }
        let directory = state.clone();
        let synced = on_disk(move || durable::sync(&directory)).await;
        synced.map_err(SandboxError::io("the writing of a snapshot", &state))?;
        Ok(disks)
    }

    /// Has the guest write what it holds in memory to its disks: a copy of the disks alone would miss it.
    pub(super) async fn sync(&self, entry: &Entry) -> Result<(), SandboxError> {
        let request = BashRequest {
            command: "sync".to_owned(),
            timeout_ms: Some(u64::try_from(SYNC_DEADLINE.as_millis()).unwrap_or(u64::MAX)),
            user: RunAs::Agent,
            ..BashRequest::default()
        };
        match entry.guest().bash(request).await {
            Ok(result) if result.exit_code == Some(0) => Ok(()),
            Ok(result) => {
                tracing::warn!(sandbox = %entry.id, code = ?result.exit_code, "the guest could not write its caches");
                Err(SandboxError::Io {
                    what: "the writing of the guest's caches to its disks",
                    source: std::io::Error::other(format!("sync ended with {:?}", result.exit_code)),
                })
            }
            Err(error) => Err(SandboxError::Guest(error)),
        }
    }

    fn describe(
        &self,
        entry: &Entry,
        id: SnapshotId,
        new: &NewSnapshot,
        directory: &Path,
        disks: BTreeMap<String, Seal>,
    ) -> SnapshotInfo {
        let record = entry.record();
        SnapshotInfo {
            sandbox_id: entry.id.as_uuid(),
            created_at: Utc::now(),
            memory: new.memory,
            template: record.template,
            memory_mb: record.memory_mb,
            vcpu_count: record.vcpu_count,
            disk_mb: record.disk_mb,
            network: record.network,
            root_format: record.root_format,
            labels: new.labels.clone(),
            root_bytes: allocated(&directory.join(ROOT)),
            workspace_bytes: allocated(&directory.join(DATA)),
            disks,
            ..SnapshotInfo::nothing(id)
        }
    }

    /// Removes what interrupted snapshots and forks have left.
    pub(super) async fn remove_partial_snapshots(&self) {
        let entries = std::fs::read_dir(self.layout.named_snapshots()).into_iter().flatten().flatten();
        let of_fork = |name: &str| {
            let info = name.parse().ok().and_then(|id| self.snapshot_info(id).ok());
            info.is_some_and(|info| info.labels.contains_key(FORK_LABEL))
        };
        let left = entries.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".partial") || of_fork(&name)
        });
        for entry in left {
            if let Err(error) = remove_directory(&entry.path()).await {
                tracing::warn!(reason = error_chain(&error), "half a snapshot is left");
            }
        }
    }
}

// === impl SnapshotInfo ===

impl SnapshotInfo {
    fn nothing(id: SnapshotId) -> Self {
        Self {
            version: VERSION,
            snapshot_id: id.as_uuid(),
            sandbox_id: uuid::Uuid::nil(),
            created_at: DateTime::UNIX_EPOCH,
            memory: false,
            template: String::new(),
            memory_mb: 0,
            vcpu_count: 0,
            disk_mb: 0,
            network: NetworkWord::None,
            root_format: RootFormat::Raw,
            labels: BTreeMap::new(),
            root_bytes: 0,
            workspace_bytes: 0,
            disks: BTreeMap::new(),
        }
    }
}

/// The bytes that a file takes on the disk.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|metadata| metadata.blocks() * 512).unwrap_or(0)
}
