//! Firecracker's jailer: each monitor in a root directory of its own, as a user of its own, with a control group.
//!
//! ```text
//!   {machine}/firecracker.sock ──► firecracker/{id}/root/firecracker.sock
//!   {machine}/vsock.sock       ──► firecracker/{id}/root/vsock.sock
//!   {machine}/firecracker/{id}/root/          what the monitor sees as `/`
//!   ├── firecracker                           the program, copied by the jailer
//!   ├── dev/kvm, dev/net/tun                  made by the jailer
//!   ├── kernel, initramfs, root.disk, …       the same files as outside: hard links
//!   └── firecracker.sock, vsock.sock
//! ```
//!
//! The jail lies in the machine's directory and is removed with it. Outside paths are as they are without a jail; those
//! of the sockets are links, which are short enough for a socket's path; the jail's own paths are not.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{MachineId, MachineSpec};

/// The jailer's name on PATH.
const PROGRAM: &str = "jailer";
/// The parent of all machines' control groups.
const CONTROL_GROUP: &str = "emergent-microvm";
/// Memory that a monitor may use besides its guest's, in MiB; most of it is the host's cache of the disks.
const OVERHEAD_MIB: u64 = 128;
/// A period of the scheduler, in microseconds.
const PERIOD: u64 = 100_000;

/// Whether monitors are put into jails.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum JailChoice {
    /// Monitors are put into jails if this process runs as root and finds a jailer on PATH.
    #[default]
    Auto,
    /// Never.
    None,
    /// Always, by this program.
    Only(PathBuf),
}

/// A text that is no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes auto, none, or the absolute path of the jailer")]
pub struct InvalidJail;

/// The users that jailed monitors run as, one for each machine as long as there are enough; their groups have the same
/// numbers. No other process should run as any of them.
pub(super) const USERS: RangeInclusive<u32> = 70_000..=79_999;

/// The maker of jails on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jailer {
    program: PathBuf,
    groups: ControlGroups,
}

/// The version of the system's control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ControlGroups {
    None,
    V1,
    V2,
}

// === impl JailChoice ===

impl JailChoice {
    /// Returns the maker of jails.
    ///
    /// # Errors
    /// The reason why no jails are made, as a sentence for people.
    pub(super) fn jailer(&self) -> Result<Jailer, String> {
        if *self == Self::None {
            return Err("the jailer is switched off".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("the jailer needs root".to_owned());
        }
        let program = match self {
            Self::Only(program) => program.is_file().then(|| program.clone()),
            _ => on_path(Path::new(PROGRAM)),
        };
        let program = program.ok_or_else(|| "there is no jailer; install it beside firecracker".to_owned())?;
        Ok(Jailer { program, groups: ControlGroups::find() })
    }
}

impl FromStr for JailChoice {
    type Err = InvalidJail;

    fn from_str(text: &str) -> Result<Self, InvalidJail> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            path if Path::new(path).is_absolute() => Ok(Self::Only(path.into())),
            _ => Err(InvalidJail),
        }
    }
}

/// The user of a machine's monitor.
pub(super) fn user(id: MachineId) -> u32 {
    let users = u64::from(USERS.end() - USERS.start()) + 1;
    let (_, low) = id.as_uuid().as_u64_pair();
    USERS.start() + u32::try_from(low % users).unwrap_or(0)
}

// === impl Jailer ===

impl Jailer {
    /// The jailer's program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the reason why jails are weaker than they could be, if any.
    pub(super) fn warning(&self) -> Option<String> {
        let advice = "machines have no control groups: /sys/fs/cgroup has none that this process may make; what a \
                      monitor takes besides its guest's memory and CPUs is not bounded";
        (self.groups == ControlGroups::None).then(|| advice.to_owned())
    }

    /// Returns the jailer's arguments for the monitor `monitor`, as its page in Firecracker's documentation describes
    /// them. The monitor's own arguments come after them.
    pub(super) fn arguments(&self, spec: &MachineSpec, monitor: &Path) -> Vec<String> {
        let user = user(spec.id).to_string();
        let mut words = Vec::new();
        let mut say = |option: &str, value: String| words.extend([option.to_owned(), value]);
        say("--id", spec.id.to_string());
        say("--exec-file", monitor.display().to_string());
        say("--uid", user.clone());
        say("--gid", user);
        say("--chroot-base-dir", spec.dir.display().to_string());
        let memory = (u64::from(spec.memory_mib) + OVERHEAD_MIB) << 20;
        let time = u64::from(spec.vcpus) * PERIOD;
        let limits = match self.groups {
            ControlGroups::None => Vec::new(),
            ControlGroups::V1 => vec![
                format!("memory.limit_in_bytes={memory}"),
                format!("cpu.cfs_period_us={PERIOD}"),
                format!("cpu.cfs_quota_us={time}"),
            ],
            ControlGroups::V2 => vec![format!("memory.max={memory}"), format!("cpu.max={time} {PERIOD}")],
        };
        if !limits.is_empty() {
            let version = if self.groups == ControlGroups::V2 { "2" } else { "1" };
            say("--cgroup-version", version.to_owned());
            say("--parent-cgroup", CONTROL_GROUP.to_owned());
        }
        for limit in limits {
            say("--cgroup", limit);
        }
        words.push("--".to_owned());
        words
    }
}

/// The root of a machine's jail.
pub(super) fn root(dir: &Path, monitor: &Path, id: MachineId) -> PathBuf {
    dir.join(monitor.file_name().unwrap_or_default()).join(id.to_string()).join("root")
}

/// Removes the control groups of a machine that has ended.
pub(super) fn remove_control_groups(id: &str) {
    for controller in ["", "memory", "cpu"] {
        let group = Path::new("/sys/fs/cgroup").join(controller).join(CONTROL_GROUP).join(id);
        // There is one at most of two of the three places, and one that stays is empty.
        fs::remove_dir(group).ok();
    }
}

/// Puts the file under a name into a jail, for the jail's user to read, and for `writer` to write if given. The file is
/// copied if the jail is on another file system.
pub(super) fn link(from: &Path, to: &Path, writer: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let from = fs::canonicalize(from)?;
    match fs::hard_link(&from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            crate::disks::copy(&from, to).map_err(io::Error::other)?;
        }
        linked => linked?,
    }
    match writer {
        Some(user) => chown(to, Some(user), Some(user)),
        None => {
            let mode = fs::metadata(to)?.mode();
            match mode & 0o004 {
                0 => fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o004)),
                _ => Ok(()),
            }
        }
    }
}

/// Finds a program's path as a shell does.
pub(super) fn on_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return fs::canonicalize(program).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| fs::canonicalize(folder.join(program)).ok())
}

// === impl ControlGroups ===

impl ControlGroups {
    fn find() -> Self {
        let base = Path::new("/sys/fs/cgroup");
        let may_make = |parent: PathBuf| fs::create_dir_all(parent.join(CONTROL_GROUP)).is_ok();
        if base.join("cgroup.controllers").is_file() {
            return if may_make(base.to_owned()) { Self::V2 } else { Self::None };
        }
        let both = ["memory", "cpu"].iter().all(|name| base.join(name).is_dir() && may_make(base.join(name)));
        if both { Self::V1 } else { Self::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, Kernel};

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::generate(),
            dir: "/m".into(),
            kernel: Kernel { image: "/k".into(), initramfs: None, command_line: Vec::new() },
            root: Disk::raw("/m/root"),
            data: None,
            memory_mib: 256,
            vcpus: 2,
            network: None,
            processes: None,
        }
    }

    #[test]
    fn a_jail_is_in_the_machines_directory_and_its_user_nobody_elses() {
        let spec = spec();
        for (groups, limits) in [
            (ControlGroups::None, vec![]),
            (ControlGroups::V2, vec!["memory.max=402653184", "cpu.max=200000 100000"]),
            (
                ControlGroups::V1,
                vec!["memory.limit_in_bytes=402653184", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=200000"],
            ),
        ] {
            let words = Jailer { program: PROGRAM.into(), groups }.arguments(&spec, Path::new("/bin/firecracker"));
            let after = |option: &str| {
                let places = words.iter().enumerate().filter(|(_, word)| *word == option);
                places.map(|(place, _)| words[place + 1].as_str()).collect::<Vec<_>>()
            };
            assert_eq!(after("--chroot-base-dir"), ["/m"]);
            assert_eq!(after("--exec-file"), ["/bin/firecracker"]);
            assert_eq!(after("--uid"), after("--gid"));
            assert_eq!(after("--cgroup"), limits);
            assert_eq!(words.last().unwrap(), "--");
        }
        assert!(USERS.contains(&user(spec.id)));
        let root = root(&spec.dir, Path::new("/bin/firecracker"), spec.id);
        assert_eq!(root, Path::new("/m/firecracker").join(spec.id.to_string()).join("root"));
    }
}
