//! The places of all files on disk. The directory is the store: a new process finds all that an earlier one left.
//!
//! ```text
//!   base/
//!   ├── driver                                 what runs machines, for as long as there are any
//!   ├── kernels/default-vmlinux.bin …          what machines boot
//!   ├── rootfs/default-rootfs.ext4 …           templates
//!   ├── sandboxes/{sandbox_id}/
//!   │   ├── state.json                         what is wanted and what is: written first, replaced atomically
//!   │   ├── rootfs.ext4, data.ext4             the sandbox's own disks; data is mounted at /workspace
//!   │   └── firecracker.sock, vsock.sock …     the driver's
//!   ├── probes/qemu/ …                         the machine that shows whether machines boot
//!   ├── template-snapshots/{key}/              machines that have just booted, for sandboxes to begin with
//!   └── snapshots/
//!       ├── {sandbox_id}/snapshot, memory      a paused sandbox's state
//!       └── named/{snapshot_id}/               snapshots that were asked for, disks and all
//! ```

use std::path::{Path, PathBuf};

use emergent_microvm::durable;
use emergent_types::SnapshotId;

use crate::SandboxId;

/// The name of a snapshot's directory until it is whole.
const PARTIAL: &str = "partial";

/// The directories below one base.
#[derive(Debug, Clone)]
pub struct Layout {
    microvm: emergent_microvm::Layout,
}

// === impl Layout ===

impl Layout {
    /// The layout below `base`, which need not be there yet.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { microvm: emergent_microvm::Layout::new(base) }
    }

    /// The part of the layout that the drivers know.
    pub fn microvm(&self) -> &emergent_microvm::Layout {
        &self.microvm
    }

    /// The base itself.
    pub fn base(&self) -> &Path {
        self.microvm.base()
    }

    /// Makes what is missing, for its owner alone where it holds what belongs to sandboxes.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn make(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        for public in [self.kernels(), self.templates()] {
            std::fs::create_dir_all(public)?;
        }
        for private in [self.sandboxes(), self.named_snapshots(), self.template_snapshots()] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(private)?;
        }
        [self.base(), &self.snapshots()].into_iter().try_for_each(durable::sync)
    }

    /// The name of the driver that machines were run with last.
    pub fn driver(&self) -> PathBuf {
        self.base().join("driver")
    }

    /// Kernel images.
    pub fn kernels(&self) -> PathBuf {
        self.microvm.kernels()
    }

    /// Base root file systems.
    pub fn templates(&self) -> PathBuf {
        self.microvm.rootfs()
    }

    /// Machines that show whether machines boot, one for each driver.
    pub fn probes(&self) -> PathBuf {
        self.base().join("probes")
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.microvm.sandboxes()
    }

    /// One sandbox.
    pub fn sandbox(&self, id: SandboxId) -> PathBuf {
        self.sandboxes().join(id.to_string())
    }

    /// A sandbox's record.
    pub fn record(&self, id: SandboxId) -> PathBuf {
        self.sandbox(id).join("state.json")
    }

    /// A sandbox's root disk.
    pub fn root_disk(&self, id: SandboxId) -> PathBuf {
        self.sandbox(id).join("rootfs.ext4")
    }

    /// A sandbox's disk for `/workspace`.
    pub fn data_disk(&self, id: SandboxId) -> PathBuf {
        self.sandbox(id).join("data.ext4")
    }

    /// The states of paused sandboxes.
    pub fn snapshots(&self) -> PathBuf {
        self.microvm.snapshots()
    }

    /// The state of a paused sandbox; there only when it is whole.
    pub fn paused(&self, id: SandboxId) -> PathBuf {
        self.snapshots().join(id.to_string())
    }

    /// The state of a sandbox that is being paused.
    pub fn pausing(&self, id: SandboxId) -> PathBuf {
        self.snapshots().join(format!("{id}.{PARTIAL}"))
    }

    /// Snapshots of templates: machines that have just booted, for sandboxes to begin with.
    pub fn template_snapshots(&self) -> PathBuf {
        self.base().join("template-snapshots")
    }

    /// One of them; there only when it is whole.
    pub fn template_snapshot(&self, key: &str) -> PathBuf {
        self.template_snapshots().join(key)
    }

    /// One that is being saved.
    pub fn saving_template_snapshot(&self, key: &str) -> PathBuf {
        self.template_snapshots().join(format!("{key}.{PARTIAL}"))
    }

    /// Snapshots that were asked for.
    pub fn named_snapshots(&self) -> PathBuf {
        self.snapshots().join("named")
    }

    /// One of them; there only when it is whole.
    pub fn named(&self, id: SnapshotId) -> PathBuf {
        self.named_snapshots().join(id.to_string())
    }

    /// One that is being taken.
    pub fn taking(&self, id: SnapshotId) -> PathBuf {
        self.named_snapshots().join(format!("{id}.{PARTIAL}"))
    }
}
