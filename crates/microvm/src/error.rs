//! Why a machine could not be made or handled. Display never repeats the cause; print the chain.

use std::{io, path::PathBuf};

use crate::{GoneReason, VmmKind};

/// What lies beneath an error, whatever its type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The monitor cannot be used on this host, or not for this machine.
    #[error("{vmm} cannot run this machine: {reason}")]
    Unsupported {
        /// Which monitor.
        vmm: VmmKind,
        /// Why, and what to do.
        reason: String,
    },
    /// A machine runs in this directory already.
    #[error("a machine runs in {} already; end it first", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
    },
    /// The monitor's program does not start.
    #[error("{program} does not start; {advice}")]
    NoProgram {
        /// Which program.
        program: String,
        /// What to do.
        advice: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor ended before the machine ran.
    #[error("{vmm} refused the machine: {message}")]
    Refused {
        /// Which monitor.
        vmm: VmmKind,
        /// The monitor's words.
        message: String,
    },
    /// A file of the machine's could not be made or read.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor runs and does not do as it is told.
    #[error("the machine could not be started")]
    Control(#[from] VmmError),
}

/// Why a machine that there is, or was, could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// There is no machine to handle.
    #[error("{0}")]
    Gone(GoneReason),
    /// The monitor's process is there and does not answer.
    #[error("{vmm} does not answer for this machine")]
    Silent {
        /// Which monitor.
        vmm: VmmKind,
        /// What happened on its control socket.
        #[source]
        source: Cause,
    },
    /// The monitor said no.
    #[error("{vmm} refused to {action}: {message}")]
    Refused {
        /// Which monitor.
        vmm: VmmKind,
        /// What was asked.
        action: &'static str,
        /// The monitor's words.
        message: String,
    },
    /// As many channels as the machine has are open already.
    #[error("all {limit} channels to this machine are in use; close one")]
    NoFreeChannel {
        /// How many there are.
        limit: usize,
    },
    /// A file of the machine's could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a machine was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Only a frozen machine can be saved.
    #[error("the machine is not frozen; freeze it first")]
    NotFrozen,
    /// The disk is full.
    #[error("there is no room for the machine's memory in {}; free some, or save elsewhere", into.display())]
    NoRoom {
        /// Where it was to be written.
        into: PathBuf,
        /// What is known of it.
        #[source]
        source: Cause,
    },
    /// A file could not be written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The monitor does not do as it is told.
    #[error("the machine could not be saved")]
    Control(#[from] VmmError),
}

/// Why a machine was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What was saved is not whole: a file is missing, cut short, or not what was written.
    #[error("what was saved in {} is damaged: {reason}", from.display())]
    Damaged {
        /// Where it was saved.
        from: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was saved by another monitor, version or processor, or with other dimensions.
    #[error("what was saved in {} is of another kind: {reason}", from.display())]
    Foreign {
        /// Where it was saved.
        from: PathBuf,
        /// What differs: what was saved, and what there is.
        reason: String,
    },
    /// The machine does not start.
    #[error("the machine could not be restored")]
    Boot(#[from] BootError),
}

// === impl RestoreError ===

impl From<VmmError> for RestoreError {
    fn from(error: VmmError) -> Self {
        Self::Boot(BootError::Control(error))
    }
}
