//! Kernels: taking one in, once, for both monitors, with the initial file system that goes with it.
//!
//! A kernel is imported under a name. What comes of it are an uncompressed ELF image, which Firecracker and QEMU both
//! start without any work inside the machine, and an initial file system with the guest as `/init` and the modules
//! that a machine's devices need. A note beside them says where they come from; it is written last, so a kernel
//! without one is not there.

mod cpio;
mod decompress;
mod modules;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Kernel, Layout, durable, error::Cause};

/// The source of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// A Debian package such as `linux-image-6.1.0-56-cloud-amd64_….deb`, with the kernel and its modules.
    Package(PathBuf),
    /// An image by itself, compressed or not, whose drivers are built in.
    Image(PathBuf),
}

/// A kernel that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedKernel {
    /// The kernel's name here.
    pub name: String,
    /// The source that the kernel came from, for people.
    pub source: String,
    /// SHA-256 of the image, in hexadecimal.
    pub image_sha256: String,
    /// SHA-256 of the initial file system, in hexadecimal.
    pub initramfs_sha256: String,
    /// The modules in the initial file system, in the order in which they are loaded.
    pub modules: Vec<String>,
}

/// The reason for which a kernel was not imported, or is not there.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No kernel of that name.
    #[error("there is no kernel {0:?}; import one with `emergent kernel import`")]
    Missing(String),
    /// A name that could leave its directory.
    #[error("{0:?} cannot be a name; use letters, digits, dots, dashes and underscores")]
    Name(String),
    /// The source has no kernel in it.
    #[error("{} has no kernel image in it; give a linux-image package, a bzImage or a vmlinux", .0.display())]
    NoKernel(PathBuf),
    /// The kernel is packed in a way that is not known.
    #[error("the kernel in {} cannot be unpacked: {reason}", path.display())]
    Packing {
        /// The image.
        path: PathBuf,
        /// The fault of the kernel, and the next step.
        reason: String,
    },
    /// A program that is needed failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// The program's message.
        message: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause of the failure.
        #[source]
        source: Cause,
    },
}

/// Takes a kernel in under `name`, with the static program `guest` as the machines' first process. One that has the
/// name already is replaced; machines that run are not touched. Blocks for some seconds.
///
/// # Errors
/// [`KernelError`]; then the name means what it meant before.
pub fn import(layout: &Layout, name: &str, source: &KernelSource, guest: &Path) -> Result<ImportedKernel, KernelError> {
    check_name(name)?;
    let directory = layout.kernels();
    fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    let work =
        tempfile::Builder::new().prefix(".import-").tempdir_in(&directory).map_err(failed("write in", &directory))?;
    let (image, modules) = match source {
        KernelSource::Image(path) => (path.clone(), Vec::new()),
        KernelSource::Package(package) => unpack(package, work.path())?,
    };
    let packed = fs::read(&image).map_err(failed("read", &image))?;
    let vmlinux =
        decompress::vmlinux(&packed).map_err(|reason| KernelError::Packing { path: image.clone(), reason })?;
    let program = fs::read(guest).map_err(failed("read", guest))?;
    let initramfs = initramfs(&program, &modules);
    let imported = ImportedKernel {
        name: name.to_owned(),
        source: origin(source),
        image_sha256: hex::encode(Sha256::digest(&vmlinux)),
        initramfs_sha256: hex::encode(Sha256::digest(&initramfs)),
        modules: modules.into_iter().map(|module| module.name).collect(),
    };
    // Each is put in place whole. A reader in between finds two that fit, as the initial file system has modules that
    // either kernel refuses or takes.
    place(&directory, work.path(), &file_name(name, "vmlinux.bin"), &vmlinux)?;
    place(&directory, work.path(), &file_name(name, "initramfs.cpio"), &initramfs)?;
    let note = serde_json::to_vec_pretty(&imported).map_err(|error| KernelError::File {
        action: "write",
        path: directory.join(file_name(name, "kernel.json")),
        source: error.into(),
    })?;
    place(&directory, work.path(), &file_name(name, "kernel.json"), &note)?;
    Ok(imported)
}

/// The kernel of a name, ready for a [`MachineSpec`](crate::MachineSpec).
///
/// # Errors
/// [`KernelError::Missing`] when it was never imported as a whole.
pub fn find(layout: &Layout, name: &str) -> Result<Kernel, KernelError> {
    check_name(name)?;
    let file = |suffix| layout.kernels().join(file_name(name, suffix));
    if !note(layout, name).is_file() {
        return Err(KernelError::Missing(name.to_owned()));
    }
    Ok(Kernel { image: file("vmlinux.bin"), initramfs: Some(file("initramfs.cpio")), command_line: Vec::new() })
}

/// The file that says what the kernel of a name is: an [`ImportedKernel`] as JSON.
pub fn note(layout: &Layout, name: &str) -> PathBuf {
    layout.kernels().join(file_name(name, "kernel.json"))
}

/// Names of files are made of it, so it may not lead elsewhere.
pub(crate) fn check_name(name: &str) -> Result<(), KernelError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(KernelError::Name(name.to_owned())),
    }
}

fn file_name(name: &str, suffix: &str) -> String {
    format!("{name}-{suffix}")
}

fn origin(source: &KernelSource) -> String {
    let (KernelSource::Package(path) | KernelSource::Image(path)) = source;
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The image and the needed modules of a package.
fn unpack(package: &Path, work: &Path) -> Result<(PathBuf, Vec<modules::Module>), KernelError> {
    let tree = work.join("package");
    let output = Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree).output();
    let output = output.map_err(|error| KernelError::Program { program: "dpkg-deb", message: error.to_string() })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(KernelError::Program { program: "dpkg-deb", message });
    }
    let boot = tree.join("boot");
    let entries = fs::read_dir(&boot).map_err(|_| KernelError::NoKernel(package.to_owned()))?;
    let image = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinu")))
        .ok_or_else(|| KernelError::NoKernel(package.to_owned()))?;
    let modules = modules::needed(&tree).map_err(|source| KernelError::File {
        action: "read the modules of",
        path: package.to_owned(),
        source: source.into(),
    })?;
    Ok((image, modules))
}

fn initramfs(guest: &[u8], modules: &[modules::Module]) -> Vec<u8> {
    let mut archive = cpio::Archive::default();
    archive.directory("dev");
    // The first process has its standard output there before it has mounted anything.
    archive.console("dev/console");
    for directory in ["proc", "sys", "new-root", ".emergent-modules"] {
        archive.directory(directory);
    }
    archive.file("init", 0o755, guest);
    for module in modules {
        archive.file(&format!(".emergent-modules/{}.ko", module.name), 0o644, &module.contents);
    }
    let order: String = modules.iter().map(|module| format!("{}.ko\n", module.name)).collect();
    archive.file(".emergent-modules/order", 0o644, order.as_bytes());
    archive.finish()
}

fn place(directory: &Path, work: &Path, name: &str, contents: &[u8]) -> Result<(), KernelError> {
    let (aside, target) = (work.join(name), directory.join(name));
    durable::write(&aside, contents).map_err(failed("write", &aside))?;
    durable::rename(&aside, &target).map_err(failed("replace", &target))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.to_owned();
    move |source| KernelError::File { action, path, source: source.into() }
}
