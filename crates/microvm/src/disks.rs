//! Disks: made, cloned and kept small.
//!
//! A clone shares what it has with its original where the file system can do that. Where it cannot, QEMU's overlays do
//! the same one level up, and otherwise everything but the holes is copied.
//!
//! A new disk's contents are synced to the host's disk before the disk is reported as made: a power cut leaves no disk
//! that is hollow.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{fs::SeekFrom, io::Errno};

use crate::{Disk, DiskFormat, VmmKind, durable};

/// The offset of the disk's length in the file of an overlay.
const QCOW2_LENGTH: u64 = 24;

/// How a disk was cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloneMethod {
    /// The file system shares the blocks.
    Shared,
    /// An overlay over the original, which must stay as it is.
    Overlay,
    /// Everything but the holes was copied.
    Copied,
}

/// The reason for which a disk was not made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host's disk is full.
    #[error("there is no room for {}; free some", .0.display())]
    NoRoom(PathBuf),
    /// A program failed.
    #[error("{program} failed for {}: {message}", path.display())]
    Program {
        /// The program's name.
        program: &'static str,
        /// For which disk.
        path: PathBuf,
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
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Makes a machine's disk from a shared image, which is never written to. Blocks. For QEMU the disk may become an
/// overlay; then the image must not be removed while the disk is there.
///
/// # Errors
/// [`DiskError`]; nothing is left at `target` then.
pub fn from_image(image: &Path, target: &Path, vmm: VmmKind) -> Result<(Disk, CloneMethod), DiskError> {
    undone_on_error(target, || {
        if share(image, target)? {
            return Ok((Disk::raw(target), CloneMethod::Shared));
        }
        if vmm == VmmKind::Qemu {
            let image = fs::canonicalize(image).map_err(failed("find", image))?;
            overlay(&image, target)?;
            sync(target)?;
            return Ok((Disk { format: DiskFormat::Qcow2, ..Disk::raw(target) }, CloneMethod::Overlay));
        }
        copy(image, target)?;
        Ok((Disk::raw(target), CloneMethod::Copied))
    })
}

/// Clones a disk of a machine that is frozen, or off. An overlay's clone lies over the same image. Blocks.
///
/// # Errors
/// [`DiskError`]; nothing is left at `target` then.
pub fn clone(disk: &Disk, target: &Path) -> Result<(Disk, CloneMethod), DiskError> {
    undone_on_error(target, || {
        let cloned = Disk { path: target.to_owned(), ..disk.clone() };
        if share(&disk.path, target)? {
            return Ok((cloned, CloneMethod::Shared));
        }
        copy(&disk.path, target)?;
        Ok((cloned, CloneMethod::Copied))
    })
}

/// Makes an empty disk with a file system of `bytes`, which takes room as it is written to. Blocks.
///
/// # Errors
/// [`DiskError`]; nothing is left at `target` then.
pub fn empty(target: &Path, bytes: u64) -> Result<Disk, DiskError> {
    undone_on_error(target, || {
        let file = File::create_new(target).map_err(failed("make", target))?;
        file.set_len(bytes).map_err(failed("size", target))?;
        make_file_system(target, None, None)?;
        sync(target)?;
        Ok(Disk::raw(target))
    })
}

/// Makes a disk of a machine that is off at least `bytes` long. The guest makes the file system on it as large when it
/// boots. Blocks.
///
/// # Errors
/// [`DiskError`]; the disk is as it was then.
pub fn grow(disk: &Disk, bytes: u64) -> Result<(), DiskError> {
    let path = &disk.path;
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open", path))?;
    match disk.format {
        DiskFormat::Raw => match file.metadata().map_err(failed("look at", path))?.len() {
            length if length >= bytes => Ok(()),
            _ => file.set_len(bytes).and_then(|()| file.sync_all()).map_err(failed("size", path)),
        },
        DiskFormat::Qcow2 => {
            let mut length = [0; 8];
            file.read_exact_at(&mut length, QCOW2_LENGTH).map_err(failed("read", path))?;
            if u64::from_be_bytes(length) >= bytes {
                return Ok(());
            }
            let mut command = Command::new("qemu-img");
            command.args(["resize", "-q", "-f", "qcow2"]).arg(path).arg(bytes.to_string());
            run("qemu-img", command, path)?;
            sync(path)
        }
    }
}

/// Waits until a disk is on the host's disk as its machine, which is frozen or off, has left it: the monitor's writes
/// may be in the host's memory. Blocks.
///
/// # Errors
/// [`DiskError`] when it may not be.
pub fn sync(disk: &Path) -> Result<(), DiskError> {
    durable::sync(disk).map_err(failed("sync", disk))
}

/// Makes an ext4 file system on `target`, which has its size already unless one is given, with what is in `tree`.
pub(crate) fn make_file_system(target: &Path, tree: Option<&Path>, bytes: Option<u64>) -> Result<(), DiskError> {
    let mut command = Command::new("mke2fs");
    // What is not written now is a hole; reserved blocks and checks at boot are for machines that somebody looks after.
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"]);
    if let Some(tree) = tree {
        command.arg("-d").arg(tree);
    }
    command.arg(target);
    if let Some(bytes) = bytes {
        command.arg(format!("{}k", bytes / 1024));
    }
    // Some systems keep it where only root looks.
    command.env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
    run("mke2fs", command, target)
}

/// Shares all blocks; says `false` where the file system cannot.
fn share(from: &Path, to: &Path) -> Result<bool, DiskError> {
    let source = File::open(from).map_err(failed("open", from))?;
    let target = File::create_new(to).map_err(failed("make", to))?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => target.sync_all().map(|()| true).map_err(failed("sync", to)),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            fs::remove_file(to).map_err(failed("remove", to))?;
            Ok(false)
        }
        Err(error) => Err(failed("clone to", to)(error.into())),
    }
}

fn overlay(image: &Path, target: &Path) -> Result<(), DiskError> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image).arg(target);
    run("qemu-img", command, target)
}

/// Copies the parts that are not holes, and waits until they are on the disk.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    let source = File::open(from).map_err(failed("open", from))?;
    let target = OpenOptions::new().write(true).create_new(true).open(to).map_err(failed("make", to))?;
    let length = source.metadata().map_err(failed("look at", from))?.len();
    target.set_len(length).map_err(failed("size", to))?;
    let mut place = 0;
    loop {
        let data = match rustix::fs::seek(&source, SeekFrom::Data(place)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return target.sync_all().map_err(failed("sync", to)),
            Err(error) => return Err(failed("read", from)(error.into())),
        };
        let end =
            rustix::fs::seek(&source, SeekFrom::Hole(data)).map_err(|error| failed("read", from)(error.into()))?;
        let (mut read, mut written) = (data, data);
        while read < end {
            let piece = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(&source, Some(&mut read), &target, Some(&mut written), piece) {
                Ok(0) => return Err(failed("read", from)(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(failed("write", to)(error.into())),
            }
        }
        place = end;
    }
}

fn run(program: &'static str, mut command: Command, path: &Path) -> Result<(), DiskError> {
    let failed = |message| DiskError::Program { program, path: path.to_owned(), message };
    let output = command.output().map_err(|error| failed(format!("it does not start: {error}; install it")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn undone_on_error<T>(target: &Path, work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    let existed = target.exists();
    let done = work();
    if done.is_err() && !existed {
        let _ = fs::remove_file(target);
    }
    done
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::NoRoom(path.clone()),
        _ => DiskError::File { action, path: path.clone(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_clone_has_the_same_contents_and_the_same_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"in the middle", 32 << 20).unwrap();
        drop(file);
        copy(&from, &to).unwrap();
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        let (disk, _) = clone(&Disk::raw(&from), &folder.path().join("third")).unwrap();
        assert_eq!(fs::metadata(disk.path).unwrap().len(), 64 << 20);
    }

    #[test]
    fn a_disk_becomes_longer_and_never_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::raw(folder.path().join("disk"));
        fs::write(&disk.path, "what it has").unwrap();
        for (asked, length) in [(1 << 20, 1 << 20), (1 << 10, 1 << 20)] {
            grow(&disk, asked).unwrap();
            assert_eq!(fs::metadata(&disk.path).unwrap().len(), length);
        }
        assert!(fs::read(&disk.path).unwrap().starts_with(b"what it has\0"));
    }

    #[test]
    fn what_is_there_already_is_neither_used_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "from").unwrap();
        fs::write(&to, "to").unwrap();
        assert!(clone(&Disk::raw(&from), &to).is_err());
        assert_eq!(fs::read_to_string(&to).unwrap(), "to");
    }
}
