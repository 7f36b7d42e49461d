//! `emergent kernel` and `emergent image`: the kernels and root file systems of microVMs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Kernels of microVMs.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a kernel, with an initial file system that has the guest and the kernel's modules.
    Import(KernelImportArgs),
}

/// Root file systems of microVMs.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make the root file system that machines' disks are cloned from.
    Build(ImageBuildArgs),
}

/// The options of the import of a kernel.
#[derive(Debug, Args)]
pub(crate) struct KernelImportArgs {
    /// The options of both commands.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A Debian package with a kernel (linux-image-…-cloud-amd64_….deb), or a kernel image with its drivers built in,
    /// compressed or not. By default Debian's kernel package for clouds is downloaded by apt-get, and not installed.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

/// The options of the build of a root file system.
#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    /// The options of both commands.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// An image of the local Docker engine, which pulls missing images; or the path (it begins with a slash or a dot)
    /// of an OCI image layout, as a directory or a tar, or of a directory with a whole root file system, as debootstrap
    /// makes it.
    #[arg(long, value_name = "IMAGE|PATH")]
    pub(crate) from: String,
    /// The size of the file system, in GiB. The file takes space only as it is written to.
    #[arg(long, value_name = "GIB", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) size: u64,
}

/// The name, the base directory and the guest of a kernel or a root file system.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The name of the kernel or the root file system.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) name: String,
    /// The base directory of kernels, root file systems, machines and snapshots. By default the manager's directory
    /// (FIRECRACKER_DIR), or else /var/lib/firecracker-workspaces.
    #[arg(long = "base", env = "WORKSPACE_FIRECRACKER_DIR", value_name = "DIR")]
    base: Option<PathBuf>,
    /// The static guest program; by default the one beside this program.
    #[arg(long, env = "EMERGENT_GUEST_PATH", value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
}

impl PlaceArgs {
    /// Returns the base directory: a server and a stand-alone manager have different variables for it, and these
    /// commands serve both.
    pub(crate) fn base(&self) -> PathBuf {
        let of_manager = || std::env::var_os("FIRECRACKER_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.base.clone().or_else(of_manager).unwrap_or_else(|| PathBuf::from(emergent_microvm::Layout::DEFAULT_BASE))
    }
}
