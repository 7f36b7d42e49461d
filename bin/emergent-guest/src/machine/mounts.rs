//! The file systems of a machine.

use std::{
    ffi::CStr,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount, mount_move},
};

use super::grow;

const KERNELS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const TEMPORARY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts the kernel's own file systems, which all later steps need.
///
/// # Errors
/// When one of them cannot be mounted; an existing mount is no error.
pub fn kernel() -> io::Result<()> {
    // The stage before has left them.
    if Path::new("/proc/self").exists() {
        return Ok(());
    }
    attach("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755")?;
    attach("proc", "/proc", KERNELS, c"")?;
    attach("sysfs", "/sys", KERNELS, c"")
}

/// Mounts the other file systems that programs expect, once the root file system is in place. `/tmp` stays on the disk:
/// it outlives a stop as it does in a container, and large builds there do not take memory.
///
/// # Errors
/// When one of them cannot be mounted.
pub fn programs() -> io::Result<()> {
    attach("devpts", "/dev/pts", DEVICES, c"mode=0620,gid=5,ptmxmode=0666")?;
    attach("tmpfs", "/dev/shm", TEMPORARY, c"mode=1777")?;
    attach("tmpfs", "/run", TEMPORARY, c"mode=0755")?;
    attach("cgroup2", "/sys/fs/cgroup", KERNELS, c"")?;
    fs::create_dir_all("/tmp")?;
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777))?;
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        match symlink(target, Path::new("/dev").join(link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Mounts a disk's ext4 file system. A writable file system is grown to the size of the disk.
///
/// # Errors
/// When the disk has no such file system, or the directory cannot be made.
pub fn disk(device: &Path, directory: &Path, read_only: bool) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    mount(device, directory, "ext4", flags | MountFlags::NOATIME, c"")?;
    if !read_only && let Err(error) = grow::to_its_disk(device, directory) {
        // What is in it can be used, and somebody can look.
        tracing::error!("the file system on {} keeps its size: {error}", device.display());
    }
    Ok(())
}

/// Makes the file system that is mounted at `root` the root, and moves the mounts of [`kernel`] into it.
///
/// # Errors
/// When the kernel refuses one of the moves.
pub fn become_root(root: &Path) -> io::Result<()> {
    for directory in ["dev", "proc", "sys"] {
        let target = root.join(directory);
        fs::create_dir_all(&target)?;
        mount_move(Path::new("/").join(directory), target)?;
    }
    rustix::process::chdir(root)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// Writes all data to the disks.
pub fn flush() {
    rustix::fs::sync();
    for directory in ["/workspace", "/"] {
        // A file system that is still busy stays writable; it has been flushed all the same.
        let _ = rustix::mount::mount_remount(directory, MountFlags::RDONLY, c"");
    }
    rustix::fs::sync();
}

fn attach(kind: &str, directory: &str, flags: MountFlags, options: &CStr) -> io::Result<()> {
    match fs::create_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match mount(kind, directory, kind, flags, options) {
        // The kernel mounts some of them by itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(io::Error::other(format!("{kind} on {directory}: {error}"))),
    }
}
