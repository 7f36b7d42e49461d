//! The errors of operations on sandboxes. Display never repeats the cause; print the chain.

use std::io;

use emergent_guest_client::GuestCallError;
use emergent_microvm::{BootError, RestoreError, SaveError, VmmError, disks::DiskError};
use emergent_provider::ChannelError;
use emergent_types::SnapshotId;

use crate::{SandboxId, admission::NoRoom, network::NetworkError, record::Phase};

/// The reason for which an operation on a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is none of this id.
    #[error("there is no sandbox {0}; GET /sandboxes lists them")]
    NotFound(SandboxId),
    /// There is no snapshot of this id.
    #[error("there is no snapshot {0}; GET /snapshots lists them")]
    SnapshotNotFound(SnapshotId),
    /// A snapshot is not what was written.
    #[error("the snapshot {snapshot} is damaged: {reason}; delete it, and take another")]
    SnapshotDamaged {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// The file that is wrong, and its fault.
        reason: String,
    },
    /// A value makes no sense. Nothing was done.
    #[error("{message}")]
    Invalid {
        /// The field that has it.
        field: &'static str,
        /// The fault of the field and the values that it takes.
        message: String,
    },
    /// There is something of this name already.
    #[error("{0}")]
    Taken(String),
    /// The sandbox is in a state that does not allow this.
    #[error("the sandbox is {}, and cannot {operation}; {}", phase.as_str(), way_out(*phase))]
    WrongState {
        /// The operation that was asked for.
        operation: &'static str,
        /// The sandbox's state.
        phase: Phase,
    },
    /// There is no room for its machine.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The template is not there.
    #[error("there is no template {name:?}; {advice}")]
    TemplateMissing {
        /// The template's name.
        name: String,
        /// Those that there are, and how to make one.
        advice: String,
    },
    /// The disk of the host is full. What was begun is undone.
    #[error("no space is left in {place}; delete sandboxes or snapshots, or give it more space")]
    DiskFull {
        /// The path or name of the place that is full.
        place: String,
    },
    /// A file of the host could not be used.
    #[error("{what} failed")]
    Io {
        /// The action that failed.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A disk could not be made or copied.
    #[error("the sandbox's disks could not be made")]
    Disk(#[source] DiskError),
    /// The machine did not boot.
    #[error("the machine did not boot")]
    Boot(#[source] BootError),
    /// The machine's state could not be written.
    #[error("the machine's state could not be saved; it goes on")]
    Save(#[source] SaveError),
    /// No machine could be made from the state.
    #[error("the machine could not be restored")]
    Restore(#[source] RestoreError),
    /// The VMM did not do what it was told.
    #[error("the VMM could not {operation}")]
    Vmm {
        /// The operation that the machine was told.
        operation: &'static str,
        /// The VMM's error.
        #[source]
        source: VmmError,
    },
    /// The network interface could not be made.
    #[error("the sandbox's network could not be set up")]
    Network(#[source] NetworkError),
    /// The machine runs and its guest does not answer.
    #[error("the guest did not answer after the machine's start")]
    Guest(#[source] GuestCallError),
    /// The machine ended before its guest answered.
    #[error("the machine ended before its guest answered: {0}")]
    Ended(String),
    /// No channel to the guest could be opened.
    #[error("no channel to the guest could be opened")]
    Channel(#[source] ChannelError),
    /// The service is going down; what was begun is finished or undone by the next one.
    #[error("the service is stopping; try again once it runs")]
    Stopping,
}

fn way_out(phase: Phase) -> &'static str {
    match phase {
        Phase::Creating | Phase::Pausing | Phase::Resuming | Phase::Stopping | Phase::Starting => {
            "wait until it is done"
        }
        Phase::Ready => "pause it first",
        Phase::Paused | Phase::Stopped => "resume it first",
        Phase::Destroying => "it is going; make another one",
    }
}

// === impl SandboxError ===

impl SandboxError {
    /// Makes the error of a failed file operation; a full disk becomes `DiskFull`.
    pub(crate) fn io(what: &'static str, place: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let place = place.display().to_string();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { place },
            _ => Self::Io { what, source },
        }
    }

    /// A failure of the VMM.
    pub(crate) fn vmm(operation: &'static str) -> impl FnOnce(VmmError) -> Self {
        move |source| Self::Vmm { operation, source }
    }
}
