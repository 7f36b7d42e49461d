//! Directories of microVMs: kernels and templates that were made ready before, and machines that end with theirs.

use std::{
    fs, io,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// The files that a machine boots, below the directory that `LIVE_MICROVM` names.
const NEEDED: [&str; 2] = ["kernels/default-kernel.json", "rootfs/default-rootfs.ext4"];

/// The monitor of the suites' machines.
const MONITOR: &str = "qemu-system-x86_64";

/// A base directory of machines. Dropping it ends the machines and removes the directory.
pub struct Machines {
    base: TempDir,
}

/// The reason why no machine can be made here, where that is so.
pub fn why_missing() -> Option<String> {
    let Some(prepared) = prepared() else { return Some("LIVE_MICROVM is not set; run `make live`".to_owned()) };
    if let Some(file) = NEEDED.iter().find(|file| !prepared.join(file).is_file()) {
        return Some(format!("{} is not there; run `make live`", prepared.join(file).display()));
    }
    let found = Command::new(MONITOR).arg("--version").output();
    found.err().map(|error| format!("{MONITOR} does not start: {error}"))
}

/// The directory with the files that machines boot, as `emergent kernel import` and `emergent image build` make them.
pub fn prepared() -> Option<PathBuf> {
    std::env::var_os("LIVE_MICROVM").map(PathBuf::from)
}

// === impl Machines ===

impl Machines {
    /// A base directory with the kernels and templates that were made ready.
    ///
    /// # Errors
    /// When there are none, or the directory cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let machines = Self::empty()?;
        let prepared = prepared().context("LIVE_MICROVM is not set; run `make live`")?;
        for part in ["kernels", "rootfs"] {
            fs::create_dir(machines.base().join(part))?;
            for file in fs::read_dir(prepared.join(part)).context("looking for what machines boot")?.flatten() {
                symlink(file.path(), machines.base().join(part).join(file.file_name()))?;
            }
        }
        Ok(machines)
    }

    /// A base directory with nothing in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn empty() -> anyhow::Result<Self> {
        // A socket's path has 107 bytes at most.
        let base = tempfile::Builder::new().prefix("emvm-").tempdir_in("/tmp").context("making a base directory")?;
        Ok(Self { base })
    }

    /// The same for a user who has no privileges, with roots of their own: a user who may not write a file may not
    /// link it either.
    ///
    /// # Errors
    /// As [`Machines::new`].
    pub fn of_user(user: u32) -> anyhow::Result<Self> {
        let machines = Self::new()?;
        let rootfs = machines.base().join("rootfs");
        for name in machines.names("rootfs")? {
            let link = rootfs.join(name);
            let root = fs::canonicalize(&link)?;
            fs::remove_file(&link)?;
            let copied = Command::new("cp").arg("--sparse=always").args([&root, &link]).status()?;
            ensure!(copied.success(), "{} could not be copied", root.display());
            chown(&link, Some(user), Some(user))?;
        }
        for directory in [rootfs, machines.base().join("kernels"), machines.base().to_owned()] {
            chown(directory, Some(user), Some(user))?;
        }
        Ok(machines)
    }

    /// The directory itself.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// Returns the names in a directory below the base directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self, below: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.base.path().join(below))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// The process of a sandbox's machine, if it is alive.
    pub fn process(&self, sandbox: &str) -> Option<Pid> {
        self.process_in(&format!("sandboxes/{sandbox}"))
    }

    fn process_in(&self, directory: &str) -> Option<Pid> {
        let file = self.base.path().join(directory).join("vmm.pid");
        let number = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        Pid::from_raw(number).filter(|process| test_kill_process(*process).is_ok())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for place in ["sandboxes", "probes"] {
            let machines = self.names(place).unwrap_or_default();
            for process in machines.iter().filter_map(|machine| self.process_in(&format!("{place}/{machine}"))) {
                kill_process(process, Signal::KILL).ok();
            }
        }
    }
}
