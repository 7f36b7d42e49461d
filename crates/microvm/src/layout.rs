//! The directories of kernels, root file systems, machines and snapshots below one base directory.
//!
//! ```text
//! BASE/
//! ├── kernels/     NAME-vmlinux.bin, NAME-initramfs.cpio, NAME-kernel.json
//! ├── rootfs/      NAME-rootfs.ext4, NAME-rootfs.json
//! ├── sandboxes/   ID/   one machine: rootfs.ext4, data.ext4, what the driver keeps
//! └── snapshots/   ID/   snapshot, memory, manifest.json
//! ```

use std::path::{Path, PathBuf};

/// The directories below one base directory. Returns paths; makes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    base: PathBuf,
}

impl Layout {
    /// The base directory that is used unless another is named.
    pub const DEFAULT_BASE: &'static str = "/var/lib/firecracker-workspaces";

    /// The layout below `base`.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The base directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Kernels, shared by all machines.
    pub fn kernels(&self) -> PathBuf {
        self.base.join("kernels")
    }

    /// Root file systems that machines are cloned from.
    pub fn rootfs(&self) -> PathBuf {
        self.base.join("rootfs")
    }

    /// The directories of all machines.
    pub fn sandboxes(&self) -> PathBuf {
        self.base.join("sandboxes")
    }

    /// The saved states of machines.
    pub fn snapshots(&self) -> PathBuf {
        self.base.join("snapshots")
    }
}
