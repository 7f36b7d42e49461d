//! `emergent kernel` and `emergent image`: what microVMs are made of.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Kernels of microVMs.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Take a kernel in, with an initial file system that has the guest and the kernel's modules.
    Import(KernelImportArgs),
}

/// Root file systems of microVMs.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make the root file system that machines' disks are cloned from.
    Build(ImageBuildArgs),
}

/// Which kernel, and what it is called.
#[derive(Debug, Args)]
pub(crate) struct KernelImportArgs {
    /// What both commands share.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A Debian package with a kernel (linux-image-…-cloud-amd64_….deb), or a kernel image with its drivers built in,
    /// compressed or not. Left out, Debian's package for clouds is downloaded by apt-get, and not installed.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

/// From what, and how large.
#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    /// What both commands share.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// An image of the local Docker engine, which pulls what it lacks; or the path (with a slash in front or a dot) of an OCI image layout, as a
    /// directory or a tar, or of a directory with a whole root file system, as debootstrap makes it.
    #[arg(long, value_name = "IMAGE|PATH")]
    pub(crate) from: String,
    /// The size of the file system, in GiB. It takes room as it is written to.
    #[arg(long, value_name = "GIB", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) size: u64,
}

/// What it is called, where it is kept, and which guest goes in.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// What it is called.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) name: String,
    /// The base directory of kernels, root file systems, machines and snapshots. Left out, it is the manager's
    /// (FIRECRACKER_DIR), or the default.
    #[arg(long = "base", env = "WORKSPACE_FIRECRACKER_DIR", value_name = "DIR")]
    base: Option<PathBuf>,
    /// The static guest program; by default the one beside this program.
    #[arg(long, env = "EMERGENT_GUEST_PATH", value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
}

impl PlaceArgs {
    /// The base directory: a server and a stand-alone manager have a variable each for it, and these commands serve both.
    pub(crate) fn base(&self) -> PathBuf {
        let of_manager = || std::env::var_os("FIRECRACKER_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.base.clone().or_else(of_manager).unwrap_or_else(|| PathBuf::from(emergent_microvm::Layout::DEFAULT_BASE))
    }
}
