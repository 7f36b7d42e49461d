//! A monitor whose machines are rows in a table that outlives the manager, as processes do.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use emergent_microvm::{
    Acceleration, BootError, GoneReason, MachineSpec, MachineState, Probe, RestoreError, SaveError, Vmm, VmmError,
    VmmKind, durable,
};
use emergent_provider::ByteStream;

use crate::guest;

/// The host: its machines, and how it fails.
#[derive(Default)]
pub(crate) struct Monitor {
    machines: Mutex<HashMap<PathBuf, Machine>>,
    disk_full: Mutex<bool>,
    /// The number of machines that have booted.
    booted: AtomicUsize,
    /// Guests cannot write to their disks.
    cannot_sync: AtomicBool,
    /// Machines count in their memory and on their disks whenever they begin or go on.
    count: AtomicBool,
    /// The number of times that monitors still do not answer when their machines are to go on.
    deaf_to_thaws: AtomicUsize,
}

struct Machine {
    state: MachineState,
    /// The memory of the machine's processes, which is nowhere else.
    memory: String,
    /// The disk that it counts on.
    data: PathBuf,
    /// The machine's clock stood still, and its guest does not know.
    is_late: bool,
}

/// The offset at which machines count, in the middle of the smallest disks.
const COUNT_PLACE: u64 = 12 << 20;
const COUNT_BYTES: usize = 4096;

/// The machine of a directory, as its guest sees it.
struct Inside(Arc<Monitor>, PathBuf);

// === impl Monitor ===

impl Monitor {
    /// Machines that run or stand still.
    pub(crate) fn alive(&self) -> usize {
        self.lock().values().filter(|machine| !matches!(machine.state, MachineState::Gone(_))).count()
    }

    /// Returns the number of machines that have booted, rather than been restored.
    pub(crate) fn booted(&self) -> usize {
        self.booted.load(Ordering::SeqCst)
    }

    /// Machines that stand still.
    pub(crate) fn frozen(&self) -> usize {
        self.lock().values().filter(|machine| machine.state == MachineState::Frozen).count()
    }

    /// Machines that run with a clock that is behind.
    pub(crate) fn late(&self) -> usize {
        self.lock().values().filter(|machine| machine.state == MachineState::Running && machine.is_late).count()
    }

    /// Whether the guests cannot write to their disks.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.cannot_sync.store(fail, Ordering::SeqCst);
    }

    /// Monitors do not answer so often when their machines are to go on.
    pub(crate) fn fail_thaws(&self, times: usize) {
        self.deaf_to_thaws.store(times, Ordering::SeqCst);
    }

    /// From now on machines count, in their memory and on their disks, whenever they begin or go on.
    pub(crate) fn let_machines_count(&self) {
        self.count.store(true, Ordering::SeqCst);
    }

    /// The machine counts, as its process: what it writes to its disk nobody syncs.
    fn count(&self, dir: &Path) {
        if !self.count.load(Ordering::SeqCst) {
            return;
        }
        let mut machines = self.lock();
        let machine = machines.get_mut(dir).expect("the machine runs");
        let number = machine.memory.parse().unwrap_or(0) + 1;
        machine.memory = number.to_string();
        let disk = fs::File::options().write(true).open(&machine.data).unwrap();
        disk.write_all_at(&counted(number), COUNT_PLACE).unwrap();
    }

    /// The memory of the processes of a machine.
    pub(crate) fn memory(&self, dir: &Path) -> Option<String> {
        let machines = self.lock();
        let machine = machines.get(dir).filter(|machine| machine.state == MachineState::Running)?;
        Some(machine.memory.clone())
    }

    /// Has them remember something.
    pub(crate) fn remember(&self, dir: &Path, what: &str) {
        self.lock().get_mut(dir).expect("the machine runs").memory = what.to_owned();
    }

    /// The machine stands still, and nobody of the manager's wanted that.
    pub(crate) fn freeze(&self, dir: &Path) {
        self.change(dir, MachineState::Frozen).expect("the machine runs");
    }

    /// The machine's process is killed.
    pub(crate) fn kill(&self, dir: &Path) {
        self.lock().get_mut(dir).expect("there is a machine").state = MachineState::Gone(GoneReason::Killed);
    }

    /// There is no more room to save machines in.
    pub(crate) fn fill_disk(&self, full: bool) {
        *self.disk_full.lock().unwrap() = full;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Machine>> {
        self.machines.lock().unwrap()
    }

    fn change(&self, dir: &Path, to: MachineState) -> Result<(), VmmError> {
        match self.lock().get_mut(dir) {
            Some(Machine { state: MachineState::Gone(reason), .. }) => Err(VmmError::Gone(reason.clone())),
            Some(machine) => {
                machine.is_late |= to == MachineState::Frozen;
                machine.state = to;
                Ok(())
            }
            None => Err(VmmError::Gone(GoneReason::NeverBooted)),
        }
    }

    fn add(&self, spec: &MachineSpec, memory: String, is_late: bool) -> Result<(), BootError> {
        let mut machines = self.lock();
        assert!(spec.root.path.is_file() && spec.data.as_ref().is_some_and(|data| data.path.is_file()), "no disks");
        if machines.get(&spec.dir).is_some_and(|machine| !matches!(machine.state, MachineState::Gone(_))) {
            return Err(BootError::Occupied { dir: spec.dir.clone() });
        }
        let data = spec.data.as_ref().map(|data| data.path.clone()).unwrap_or_default();
        machines.insert(spec.dir.clone(), Machine { state: MachineState::Running, memory, data, is_late });
        Ok(())
    }
}

impl guest::Inside for Inside {
    fn is_told_the_time(&self) {
        if let Some(machine) = self.0.lock().get_mut(&self.1) {
            machine.is_late = false;
        }
    }

    fn sync(&self) -> i32 {
        i32::from(self.0.cannot_sync.load(Ordering::SeqCst))
    }
}

/// The driver of one manager.
pub(crate) struct Driver(pub(crate) Arc<Monitor>);

#[async_trait]
impl Vmm for Driver {
    fn kind(&self) -> VmmKind {
        VmmKind::Firecracker
    }

    async fn probe(&self) -> Probe {
        Probe::Works { acceleration: Acceleration::Emulated, version: "0".into(), warnings: Vec::new() }
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<(), BootError> {
        self.0.add(spec, String::new(), false)?;
        self.0.booted.fetch_add(1, Ordering::SeqCst);
        self.0.count(&spec.dir);
        Ok(())
    }

    async fn state(&self, dir: &Path) -> Result<MachineState, VmmError> {
        let machines = self.0.lock();
        Ok(machines.get(dir).map_or(MachineState::Gone(GoneReason::NeverBooted), |machine| machine.state.clone()))
    }

    async fn open(&self, dir: &Path) -> Result<ByteStream, VmmError> {
        match self.state(dir).await? {
            MachineState::Gone(reason) => Err(VmmError::Gone(reason)),
            MachineState::Running | MachineState::Frozen => {
                Ok(guest::connect(Inside(Arc::clone(&self.0), dir.to_owned())))
            }
        }
    }

    async fn freeze(&self, dir: &Path) -> Result<(), VmmError> {
        self.0.change(dir, MachineState::Frozen)
    }

    async fn thaw(&self, dir: &Path) -> Result<(), VmmError> {
        let deaf = self.0.deaf_to_thaws.try_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1));
        if deaf.is_ok() {
            let source = Box::new(io::Error::from(io::ErrorKind::TimedOut));
            return Err(VmmError::Silent { vmm: self.kind(), source });
        }
        self.0.change(dir, MachineState::Running)?;
        self.0.count(dir);
        Ok(())
    }

    async fn save(&self, dir: &Path, into: &Path) -> Result<(), SaveError> {
        let machines = self.0.lock();
        let Some(machine) = machines.get(dir).filter(|machine| machine.state == MachineState::Frozen) else {
            return Err(SaveError::NotFrozen);
        };
        assert_eq!(std::fs::read_dir(into).unwrap().count(), 0, "the directory is not empty");
        if *self.0.disk_full.lock().unwrap() {
            let source = Box::new(io::Error::from(io::ErrorKind::StorageFull));
            return Err(SaveError::NoRoom { into: into.to_owned(), source });
        }
        durable::write(&into.join("memory"), machine.memory.as_bytes()).unwrap();
        durable::sync(into).unwrap();
        Ok(())
    }

    async fn restore(&self, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError> {
        let memory = std::fs::read_to_string(from.join("memory"))
            .map_err(|error| RestoreError::Damaged { from: from.to_owned(), reason: error.to_string() })?;
        self.0.add(spec, memory, true)?;
        self.0.count(&spec.dir);
        Ok(())
    }

    async fn end(&self, dir: &Path) -> Result<(), VmmError> {
        self.0.lock().remove(dir);
        Ok(())
    }
}

/// The number that a machine has counted to on a disk; `None` where the disk does not say one.
pub(crate) fn count_on(disk: &Path) -> Option<u64> {
    let mut block = vec![0; COUNT_BYTES];
    fs::File::open(disk).unwrap().read_exact_at(&mut block, COUNT_PLACE).ok()?;
    let number = String::from_utf8_lossy(&block).lines().next()?.trim().parse().ok()?;
    (block == counted(number)).then_some(number)
}

fn counted(number: u64) -> Vec<u8> {
    format!("{number:7}\n").repeat(COUNT_BYTES / 8).into_bytes()
}
