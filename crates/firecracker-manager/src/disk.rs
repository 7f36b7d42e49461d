//! Disk images: cloned where the file system can, else copied with their holes; and made.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
};

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use tokio::process::Command;

/// Copies an image, blocks shared where the file system can. On an error there is no copy. A file that stands at `to` is
/// replaced.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || copy_blocking(&from, &to));
    copied.await.map_err(io::Error::other)?
}

fn copy_blocking(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(to)?;
    let copied = match ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(()),
        Err(_) => copy_data(&source, &target),
    };
    copied.and_then(|()| target.sync_all()).inspect_err(|_| {
        // What is left is of no use, and may be what fills the disk.
        std::fs::remove_file(to).ok();
    })
}

/// Copies what is not a hole.
fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    while at < length {
        let data = match seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(source, SeekFrom::Hole(data))?;
        let (mut read_at, mut write_at) = (data, data);
        while read_at < end {
            let left = usize::try_from(end - read_at).unwrap_or(usize::MAX);
            let copied = copy_file_range(source, Some(&mut read_at), target, Some(&mut write_at), left)?;
            if copied == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the image became shorter while it was copied",
                ));
            }
        }
        at = end;
    }
    Ok(())
}

/// Makes an empty ext4 image of so many MiB that uid 1000 may write to.
///
/// # Errors
/// When `mke2fs` is not there, or there is no room.
pub(crate) async fn make_empty(path: &Path, size_mib: u64) -> io::Result<()> {
    let made = async {
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(size_mib << 20)?;
        let output = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=1000:1000,lazy_itable_init=1,nodiscard"])
            .arg(path)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| {
                io::Error::new(error.kind(), format!("mke2fs cannot be run ({error}); install e2fsprogs"))
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("mke2fs failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
    };
    made.await.inspect_err(|_| {
        std::fs::remove_file(path).ok();
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[tokio::test]
    async fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"last", (32 << 20) + 7).unwrap();
        copy(&from, &to).await.unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20, "the holes are filled");
    }

    #[tokio::test]
    async fn a_copy_that_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("to");
        copy(&directory.path().join("missing"), &to).await.unwrap_err();
        assert!(!to.exists());
    }
}
