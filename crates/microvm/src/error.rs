//! The errors of making and handling machines. Display never repeats the cause; print the chain.

use std::{io, path::PathBuf};

use crate::{GoneReason, VmmKind};

/// The cause of an error, of any type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The monitor cannot be used on this host, or not for this machine.
    #[error("{vmm} cannot run this machine: {reason}")]
    Unsupported {
        /// The monitor.
        vmm: VmmKind,
        /// The reason and a remedy.
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
        /// The program.
        program: String,
        /// A remedy.
        advice: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The monitor ended before the machine ran.
    #[error("{vmm} refused the machine: {message}")]
    Refused {
        /// The monitor.
        vmm: VmmKind,
        /// The monitor's message.
        message: String,
    },
    /// A file of the machine's could not be made or read.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The monitor runs and does not obey.
    #[error("the machine could not be started")]
    Control(#[from] VmmError),
}

/// The reason why an existing or former machine could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// There is no machine to handle.
    #[error("{0}")]
    Gone(GoneReason),
    /// The monitor's process is there and does not answer.
    #[error("{vmm} does not answer for this machine")]
    Silent {
        /// The monitor.
        vmm: VmmKind,
        /// The error on the monitor's control socket.
        #[source]
        source: Cause,
    },
    /// The monitor refused a request.
    #[error("{vmm} refused to {action}: {message}")]
    Refused {
        /// The monitor.
        vmm: VmmKind,
        /// The action that was requested.
        action: &'static str,
        /// The monitor's message.
        message: String,
    },
    /// As many channels as the machine has are open already.
    #[error("all {limit} channels to this machine are in use; close one")]
    NoFreeChannel {
        /// The number of channels that a machine has.
        limit: usize,
    },
    /// A file of the machine's could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The reason why a machine was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Only a frozen machine can be saved.
    #[error("the machine is not frozen; freeze it first")]
    NotFrozen,
    /// The disk is full.
    #[error("there is no room for the machine's memory in {}; free some, or save elsewhere", into.display())]
    NoRoom {
        /// The directory that the machine was to be saved in.
        into: PathBuf,
        /// The error that reported it.
        #[source]
        source: Cause,
    },
    /// A file could not be written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The monitor does not obey.
    #[error("the machine could not be saved")]
    Control(#[from] VmmError),
}

/// The reason why a machine was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The saved state is not whole: a file is missing, cut short, or altered.
    #[error("what was saved in {} is damaged: {reason}", from.display())]
    Damaged {
        /// The directory of the saved state.
        from: PathBuf,
        /// The damage.
        reason: String,
    },
    /// The machine was saved by another monitor, version or processor, or with other dimensions.
    #[error("what was saved in {} is of another kind: {reason}", from.display())]
    Foreign {
        /// The directory of the saved state.
        from: PathBuf,
        /// The differences: the saved values, and the present ones.
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
