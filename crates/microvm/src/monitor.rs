//! The kinds of monitors, and the ends of the machines that they run.

use std::fmt;

/// A kind of monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmmKind {
    /// Firecracker, on KVM.
    Firecracker,
    /// QEMU's `microvm` machine, on KVM, or emulated where there is none.
    Qemu,
}

/// The reason for which a machine is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoneReason {
    /// The driver knows of none in this directory.
    NeverBooted,
    /// The guest turned itself off, or the monitor ended by itself.
    Exited,
    /// The monitor's process vanished without a word: killed, or out of memory.
    Killed,
    /// The monitor's process went while nobody looked after it: how is not known.
    Unseen,
    /// The guest's kernel panicked.
    Panicked {
        /// The kernel's message, cut to one line. A guest can write what it likes here.
        message: String,
    },
}

// === impl VmmKind ===

impl fmt::Display for VmmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        })
    }
}

// === impl GoneReason ===

impl fmt::Display for GoneReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBooted => f.write_str("there is no machine"),
            Self::Exited => f.write_str("the machine ended by itself"),
            Self::Killed => f.write_str("the machine's process was killed"),
            Self::Unseen => f.write_str("the machine ended while nobody looked after it, by itself or killed"),
            Self::Panicked { message } => write!(f, "the guest's kernel panicked: {message}"),
        }
    }
}
