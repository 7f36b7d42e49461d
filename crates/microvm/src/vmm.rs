//! The seam between a machine's life and the monitor that runs it.
//!
//! ```text
//!   boot ────► Running ◄──── thaw ────┐
//!   restore ─►    │                   │         save
//!                 └───── freeze ──► Frozen ────────────► files, from which any number are restored
//!                 │                   │
//!                 └──── end, exit, ───┴──► Gone
//!                       kill, panic
//! ```
//!
//! A driver keeps what it has to know of a machine in the machine's directory, never in its own memory: whoever calls
//! with the same directory, in whatever process, goes on with the same machine. Calls on one machine are made one after
//! the other by whoever owns it; [`Vmm::open`] and [`Vmm::state`] may come at any time.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use emergent_provider::ByteStream;
use tempfile::TempDir;

use crate::{BootError, GoneReason, MachineId, MachineSpec, RestoreError, SaveError, VmmError, VmmKind};

/// Runs machines with one kind of monitor.
#[async_trait]
pub trait Vmm: Send + Sync {
    /// Returns the kind of the monitor.
    fn kind(&self) -> VmmKind;

    /// The user that the monitor of a machine runs as, whom its network interface has to be given to.
    fn user(&self, _: MachineId) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// Whether machines can be run here. Boots a machine of its own the first time, which may take seconds, and
    /// remembers what came of it for the life of the driver; callers that come meanwhile wait for the same one, and one
    /// that goes away does not end it.
    async fn probe(&self) -> Probe;

    /// Starts a machine, in a process of its own that outlives ours. It runs when this returns; that the guest inside
    /// answers is for [`Vmm::open`] to show. A caller that goes away may leave a process behind, which [`Vmm::end`] on
    /// the same directory ends.
    ///
    /// # Errors
    /// [`BootError`]; nothing runs then.
    async fn boot(&self, spec: &MachineSpec) -> Result<(), BootError>;

    /// How the machine of a directory is. That it is gone is an answer, also where there never was one.
    ///
    /// # Errors
    /// [`VmmError`] when a process that is there does not say.
    async fn state(&self, dir: &Path) -> Result<MachineState, VmmError>;

    /// Opens one more channel to the guest; several may be open at once. Dropping the stream closes it. Waits for a
    /// guest that is just booting, for as long as the caller does.
    ///
    /// # Errors
    /// [`VmmError`]; [`VmmError::Gone`] when there is no machine, also when it goes while this waits.
    async fn open(&self, dir: &Path) -> Result<ByteStream, VmmError>;

    /// Stops the virtual CPUs. Memory stays where it is. Repeatable.
    ///
    /// # Errors
    /// [`VmmError`].
    async fn freeze(&self, dir: &Path) -> Result<(), VmmError>;

    /// Lets the virtual CPUs go on. Repeatable.
    ///
    /// # Errors
    /// [`VmmError`].
    async fn thaw(&self, dir: &Path) -> Result<(), VmmError>;

    /// Writes a frozen machine's memory and devices into the directory `into`, which exists and is empty; all of it is
    /// on the host's disk when this returns. The machine stays frozen: the caller ends it, or lets it go on. Disks are
    /// not copied; whoever saves a machine to restore it later keeps its disks as they are, or clones them while it is
    /// frozen.
    ///
    /// # Errors
    /// [`SaveError`]; then nothing is left in `into`, and the machine is as it was.
    async fn save(&self, dir: &Path, into: &Path) -> Result<(), SaveError>;

    /// Starts a machine, in a process of its own, from what [`Vmm::save`] wrote. It runs when this returns. What was
    /// saved is only read, so many may come of it. The host then tells the guest that it was restored, before it counts
    /// as ready: its clock stands in the past, its random numbers are those of its siblings, and its network is that of
    /// the machine that was saved.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing runs then. What is cut short, changed, or of another monitor, version or processor is
    /// refused.
    async fn restore(&self, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError>;

    /// Ends the machine at once and removes what the driver keeps in its directory, but for the disks. Repeatable.
    ///
    /// # Errors
    /// [`VmmError`] when the process could not be ended.
    async fn end(&self, dir: &Path) -> Result<(), VmmError>;
}

/// Whether machines can be run here, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A machine has been seen to boot.
    Works {
        /// The means by which the machine's instructions are carried out.
        acceleration: Acceleration,
        /// The monitor's version, as it says it.
        version: String,
        /// The weaknesses of this machine, for people: why it is emulated, for one.
        warnings: Vec<String>,
    },
    /// No machine can be run.
    Fails {
        /// The reason, and the remedy.
        reason: String,
    },
}

/// The means by which a guest's instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acceleration {
    /// The processor's virtualization, by KVM.
    Kvm,
    /// A program. Slow, and no isolation by hardware.
    Emulated,
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// The machine's virtual CPUs run.
    Running,
    /// They are stopped, and its memory is there.
    Frozen,
    /// There is no process, or none that can go on.
    Gone(GoneReason),
}

// === impl Acceleration ===

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulated => "emulated",
        })
    }
}

/// The directory of a probe's machine.
#[derive(Debug)]
pub(crate) enum ProbeDir {
    /// A directory that is kept: the next process finds there the machine of a process that was killed.
    Kept(PathBuf),
    /// A directory of this process alone, which is removed at its end.
    Passing(TempDir),
}

// === impl ProbeDir ===

impl ProbeDir {
    pub(crate) fn make(kept: Option<&Path>) -> io::Result<Self> {
        match kept {
            Some(path) => fs::create_dir_all(path).map(|()| Self::Kept(path.to_owned())),
            None => tempfile::tempdir().map(Self::Passing),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(directory) => directory.path(),
        }
    }
}

/// Runs a probe in a task of its own. A caller that goes away neither leaves its machine behind nor lets the next one
/// begin again.
pub(crate) async fn to_the_end(probe: impl Future<Output = Probe> + Send + 'static) -> Probe {
    let ended = tokio::spawn(probe).await;
    ended.unwrap_or_else(|error| Probe::Fails { reason: format!("the probe did not come to its end: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_can_be_chosen_at_run_time() {
        fn takes(_: Option<&dyn Vmm>) {}
        takes(None);
    }
}
