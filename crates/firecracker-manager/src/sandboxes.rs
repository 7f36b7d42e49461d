//! The domain: sandboxes, and what may be done with them.
//!
//! Every operation writes its intent into the sandbox's record first, changes the machine second, and records the new
//! state last. Operations on one sandbox take turns, and each runs in a task of its own: a caller that goes away does
//! not stop it half-way. Machines outlive this process; the next one adopts them.

mod boot;
mod copy;
mod create;
mod disk_files;
mod entry;
mod halt;
mod pause;
mod recover;
mod remove;
mod resume;
mod template_snapshot;
mod watch;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use emergent_guest_client::Guest;
use emergent_microvm::{Probe, Vmm, VmmError, VmmKind, durable};
use emergent_provider::ByteStream;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use copy::{NewSnapshot, SnapshotInfo};
use entry::Entry;
pub use recover::StartError;

use crate::{
    SandboxError, SandboxId,
    admission::Admission,
    config::ManagerConfig,
    layout::Layout,
    network::Interfaces,
    record::{Phase, Record},
    step::Checkpoint,
    template,
};

/// All sandboxes below one base directory. Clones are the same.
#[derive(Clone)]
pub struct Sandboxes(Arc<Inner>);

/// The parts that run machines, put in from outside.
pub struct Parts {
    /// The driver.
    pub vmm: Arc<dyn Vmm>,
    /// The maker of networks.
    pub network: Arc<dyn Interfaces>,
    /// Asked at each step.
    pub checkpoint: Checkpoint,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Machines that run or are being started.
    pub running: usize,
    /// Sandboxes in all.
    pub sandboxes: usize,
    /// The most machines that may run at once.
    pub limit: usize,
    /// Memory of those that run, in MiB.
    pub memory_used_mib: u64,
    /// Memory of all that may run, in MiB.
    pub memory_limit_mib: u64,
    /// Memory that the host has left, in MiB, where it says so.
    pub memory_available_mib: Option<u64>,
}

struct Inner {
    config: ManagerConfig,
    layout: Layout,
    vmm: Arc<dyn Vmm>,
    network: Arc<dyn Interfaces>,
    checkpoint: Checkpoint,
    entries: Mutex<HashMap<SandboxId, Arc<Entry>>>,
    admission: Mutex<Admission>,
    /// Named snapshots that sandboxes are being made from.
    in_use: Mutex<HashMap<emergent_types::SnapshotId, usize>>,
    /// Keys of the snapshots of templates that are being taken.
    saving: Mutex<HashSet<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _lock: std::fs::File,
}

// === impl Sandboxes ===

impl Sandboxes {
    /// A sandbox as it is.
    ///
    /// # Errors
    /// [`SandboxError::NotFound`].
    pub fn get(&self, id: SandboxId) -> Result<Record, SandboxError> {
        self.0.entry(id).map(|entry| entry.record())
    }

    /// All sandboxes, the oldest first.
    pub fn list(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.0.lock_entries().values().map(|entry| entry.record()).collect();
        records.sort_by_key(|record| (record.created_at, record.id()));
        records
    }

    /// The guest of a sandbox that runs.
    ///
    /// # Errors
    /// [`SandboxError::WrongState`] when it does not.
    pub fn guest(&self, id: SandboxId) -> Result<Guest, SandboxError> {
        let entry = self.0.entry(id)?;
        entry.require(Phase::Ready, "run this")?;
        Ok(entry.guest().clone())
    }

    /// Opens a byte stream to the guest of a sandbox that runs, or is being started.
    ///
    /// # Errors
    /// [`SandboxError::WrongState`] when it does not run.
    pub async fn open(&self, id: SandboxId) -> Result<ByteStream, SandboxError> {
        let entry = self.0.entry(id)?;
        let phase = entry.phase();
        if !matches!(phase, Phase::Ready | Phase::Creating | Phase::Starting | Phase::Resuming) {
            return Err(SandboxError::WrongState { operation: "be connected to", phase });
        }
        match self.0.vmm.open(&self.0.layout.sandbox(id)).await {
            Ok(stream) => Ok(stream),
            Err(VmmError::Gone(_)) => {
                Err(SandboxError::WrongState { operation: "be connected to", phase: Phase::Stopped })
            }
            Err(error) => Err(SandboxError::vmm("open a channel")(error)),
        }
    }

    /// Carries bytes between a caller and a guest until either goes away or the service stops.
    pub(crate) fn spawn_relay(&self, relay: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = relay => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// How much room there is.
    pub fn capacity(&self) -> Capacity {
        let sandboxes = self.0.lock_entries().len();
        let admission = self.0.lock_admission();
        let budget = admission.budget();
        Capacity {
            running: admission.machines(),
            sandboxes,
            limit: budget.machines,
            memory_used_mib: admission.memory_mib(),
            memory_limit_mib: budget.memory_mib,
            memory_available_mib: crate::config::memory_mib("MemAvailable"),
        }
    }

    /// Whether machines can be run here, found out by running one the first time.
    pub async fn probe(&self) -> Probe {
        self.0.vmm.probe().await
    }

    /// The kind of the monitor that runs the machines.
    pub fn vmm_kind(&self) -> VmmKind {
        self.0.vmm.kind()
    }

    /// Returns the reason why no sandbox can have a network; `None` where sandboxes can.
    pub fn network_unavailable(&self) -> Option<String> {
        self.0.network.unavailable()
    }

    /// All templates by their names, each with what tells it from what had its name before, where that is known.
    pub fn templates(&self) -> BTreeMap<String, Option<String>> {
        template::all(&self.0.layout)
    }

    /// Lets operations under way come to their ends, and takes no more. Machines go on without this process.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        for entry in self.0.lock_entries().values() {
            entry.guest().close();
        }
    }

    /// Runs an operation to its end in a task of its own.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, SandboxError>> + Send + 'static,
    ) -> Result<T, SandboxError> {
        if self.0.stop.is_cancelled() {
            return Err(SandboxError::Stopping);
        }
        self.0.tasks.spawn(operation).await.unwrap_or(Err(SandboxError::Stopping))
    }
}

// === impl Inner ===

impl Inner {
    fn entry(&self, id: SandboxId) -> Result<Arc<Entry>, SandboxError> {
        self.lock_entries().get(&id).cloned().ok_or(SandboxError::NotFound(id))
    }

    async fn pass(&self, step: &'static str) {
        (self.checkpoint)(step).await;
    }

    /// Records a phase: on disk first, for callers second.
    fn record(&self, entry: &Entry, phase: Phase, reason: Option<String>) -> Result<(), SandboxError> {
        let mut record = entry.record();
        (record.phase, record.reason, record.host_boot) = (phase, reason, self.config.host_boot);
        let path = self.layout.record(entry.id);
        record.write(&path).map_err(SandboxError::io("the writing of the sandbox's record", &path))?;
        entry.set_record(record);
        Ok(())
    }

    /// Whether the host has started anew since the sandbox's phase was recorded.
    fn host_has_restarted(&self, entry: &Entry) -> bool {
        entry.record().host_boot.is_some_and(|then| Some(then) != self.config.host_boot)
    }

    fn directory(&self, entry: &Entry) -> PathBuf {
        self.layout.sandbox(entry.id)
    }

    fn take_place(&self, entry: &Entry) -> Result<(), SandboxError> {
        let available = crate::config::memory_mib("MemAvailable");
        Ok(self.lock_admission().take(entry.id, entry.record().memory_mb, available)?)
    }

    fn release_place(&self, id: SandboxId) {
        self.lock_admission().release(id);
    }

    fn known(&self) -> HashSet<SandboxId> {
        self.lock_entries().keys().copied().collect()
    }

    fn lock_entries(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Entry>>> {
        self.entries.lock()
    }

    fn lock_admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock()
    }
}

/// Removes a directory and all that is in it, for good: no power cut brings it back. That there is none is no error.
async fn remove_directory(path: &Path) -> Result<(), SandboxError> {
    let directory = path.to_owned();
    let removed = on_disk(move || {
        let missing_is_fine = |ended: io::Result<()>| match ended {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            ended => ended,
        };
        missing_is_fine(std::fs::remove_dir_all(&directory))?;
        directory.parent().map_or(Ok(()), |parent| missing_is_fine(durable::sync(parent)))
    });
    removed.await.map_err(SandboxError::io("the removal of a directory", path))
}

/// Makes a directory anew, for its owner alone. It is there after a power cut, too.
async fn fresh_directory(path: &Path) -> Result<(), SandboxError> {
    remove_directory(path).await?;
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await;
    let made = match (made, path.parent().map(Path::to_owned)) {
        (Ok(()), Some(parent)) => on_disk(move || durable::sync(&parent)).await,
        (made, _) => made,
    };
    made.map_err(SandboxError::io("the making of a directory", path))
}

/// Puts a finished directory, whose files have been synced, where it is looked for, so that it is there after a power
/// cut, too.
async fn place(from: &Path, to: &Path) -> Result<(), SandboxError> {
    let (source, target) = (from.to_owned(), to.to_owned());
    let placed = on_disk(move || durable::sync(&source).and_then(|()| durable::rename(&source, &target))).await;
    placed.map_err(SandboxError::io("the placing of a snapshot", to))
}

/// Does what may wait for the host's disk.
async fn on_disk(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The time that the guest gets to write its caches to its disks.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);
