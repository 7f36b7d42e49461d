//! The directory where a monitor works: the machine's directory, or a jail below it. All files of the monitor have a
//! name there, so that the saved state of one machine refers to the files of the machine that is restored from it.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{
    jail::{self, Jailer},
    log_file, pid_file, socket,
};
use crate::{Kernel, MachineSpec, identity::Identity, vsock};

/// The names of a machine's disks.
pub(super) const ROOT: &str = "root.disk";
pub(super) const DATA: &str = "data.disk";
/// The names of a saved machine's files until they are moved to where they are kept.
pub(super) const SAVING: [&str; 2] = ["saving.snapshot", "saving.memory"];
/// The file that a machine is restored from.
const RESTORED_FROM: &str = "restored.snapshot";
/// The memory that a restored machine reads from the disk until it has changed it.
pub(super) const BASE: &str = "restored.memory";
/// A marker that exists while that file and the later changes do not make up the machine's memory.
pub(super) const UNKNOWN: &str = "restored.unknown";

/// The directory where a monitor works.
#[derive(Debug)]
pub(super) struct VmmDir {
    dir: PathBuf,
    /// The directory to which the monitor's relative names refer.
    root: PathBuf,
    /// The user that the monitor runs as, in a jail.
    user: Option<u32>,
}

// === impl VmmDir ===

impl VmmDir {
    /// Prepares a machine's directory, and its jail, for the monitor.
    pub(super) fn prepare(spec: &MachineSpec, version: &str, program: &Path, jailed: bool) -> io::Result<Self> {
        clear(&spec.dir)?;
        let user = jailed.then(|| jail::user(spec.id));
        let root = if jailed { jail::root(&spec.dir, program, spec.id) } else { spec.dir.clone() };
        let place = Self { dir: spec.dir.clone(), root, user };
        Identity::new(spec, crate::Acceleration::Kvm, version).write(&spec.dir)?;
        if jailed {
            fs::create_dir_all(&place.root)?;
            // Relative, as a socket's path must be short. That they lead nowhere yet is no error.
            let inside = place.root.strip_prefix(&spec.dir).map_err(io::Error::other)?;
            symlink(inside.join(file_name(&socket(&spec.dir))), socket(&spec.dir))?;
            symlink(inside.join(vsock::SOCKET), spec.dir.join(vsock::SOCKET))?;
        }
        place.bring(&spec.root.path, ROOT, true)?;
        if let Some(data) = &spec.data {
            place.bring(&data.path, DATA, true)?;
        }
        Ok(place)
    }

    /// Returns the place of the monitor of a machine that was started.
    pub(super) fn of(dir: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        match fs::read_link(socket(dir)).ok().and_then(|target| Some(dir.join(target.parent()?))) {
            Some(root) => {
                let user = fs::metadata(&root).ok().map(|root| root.uid());
                Self { dir: dir.to_owned(), root, user }
            }
            None => Self { dir: dir.to_owned(), root: dir.to_owned(), user: None },
        }
    }

    /// Returns a text that only the command line of this machine's monitor contains.
    pub(super) fn mark(&self) -> Vec<u8> {
        let id = self.root.strip_prefix(&self.dir).ok().and_then(|inside| inside.components().nth(1));
        id.map_or_else(|| self.dir.as_os_str().as_bytes().to_vec(), |id| id.as_os_str().as_bytes().to_vec())
    }

    /// Returns the command that starts the monitor.
    pub(super) fn command(&self, spec: &MachineSpec, program: &Path, jailer: Option<&Jailer>) -> Command {
        let Some(jailer) = jailer else {
            let mut command = Command::new(program);
            command.arg("--api-sock").arg(socket(&self.dir)).arg("--id").arg(spec.id.to_string());
            command.current_dir(&self.dir);
            return command;
        };
        let mut command = Command::new(jailer.program());
        command.args(jailer.arguments(spec, program)).arg("--api-sock").arg(file_name(&socket(&self.dir)));
        command
    }

    /// Returns the machine's description with paths as the monitor sees them.
    pub(super) fn seen_from_inside(&self, spec: &MachineSpec) -> io::Result<MachineSpec> {
        if self.user.is_none() {
            return Ok(spec.clone());
        }
        self.bring(&spec.kernel.image, "kernel", false)?;
        let initramfs = spec.kernel.initramfs.as_deref();
        let initramfs = initramfs.map(|file| self.bring(file, "initramfs", false).map(|()| "initramfs".into()));
        let kernel = Kernel { image: "kernel".into(), initramfs: initramfs.transpose()?, ..spec.kernel.clone() };
        Ok(MachineSpec { kernel, ..spec.clone() })
    }

    /// Links the saved files to names that the monitor knows; returns these names.
    pub(super) fn bring_saved(&self, snapshot: &Path, memory: &Path) -> io::Result<[&'static str; 2]> {
        for (from, name) in [(snapshot, RESTORED_FROM), (memory, BASE)] {
            // Not a symbolic link: how many names the file has tells whether anybody else uses it.
            jail::link(from, &self.root.join(name), None)?;
        }
        Ok([RESTORED_FROM, BASE])
    }

    /// Returns the path of one of the monitor's files.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the monitor's user, if it is not our own.
    pub(super) fn user(&self) -> Option<u32> {
        self.user
    }

    fn bring(&self, from: &Path, name: &str, write: bool) -> io::Result<()> {
        match self.user {
            Some(user) => jail::link(from, &self.root.join(name), write.then_some(user)),
            None => symlink(fs::canonicalize(from)?, self.root.join(name)),
        }
    }
}

/// Removes the driver's files from a machine's directory.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let place = VmmDir::of(dir);
    if let Some(jail) = place.root.strip_prefix(dir).ok().and_then(|inside| inside.components().next()) {
        jail::remove_control_groups(&String::from_utf8_lossy(&place.mark()));
        gone(fs::remove_dir_all(dir.join(jail)))?;
    }
    let names = [ROOT, DATA, vsock::SOCKET, RESTORED_FROM, BASE, UNKNOWN].into_iter().chain(SAVING);
    // The link to the jail goes last: it says that there is one.
    let own = [pid_file(dir), log_file(dir), Identity::file(dir)];
    let all = names.map(|name| dir.join(name)).chain(own).chain([socket(dir)]);
    all.into_iter().try_for_each(|path| gone(fs::remove_file(path)))
}

fn file_name(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}
