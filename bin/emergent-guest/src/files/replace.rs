//! Replacing a file in one step: the new contents are written beside it and then take its name.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use emergent_guest_proto::{ErrorCode, GuestError};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{executions::random_name, failure, tools::open::not_a_file};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The permissions of a new file.
const NEW_FILE: u32 = 0o644;

/// A file that is about to take a name. Dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct Replacement {
    /// The new contents.
    pub file: File,
    directory: OwnedFd,
    temporary: String,
    target: PathBuf,
    /// What stood there before.
    before: Option<Metadata>,
    settled: bool,
}

/// Writes `contents` to `path`; says whether the file is new.
///
/// # Errors
/// That of the file system; the old contents are kept then.
pub fn replace(path: &Path, contents: &[u8]) -> Result<bool, GuestError> {
    let target = follow_links(path)?;
    let failed = |error: io::Error| failure::at(&target, "write", &error);
    match Replacement::begin(&target) {
        Ok(mut replacement) => {
            replacement.file.write_all(contents).map_err(failed)?;
            let created = replacement.before.is_none();
            replacement.settle(None)?;
            Ok(created)
        }
        // A writable file in a directory that is not: then it cannot be done in one step.
        Err(error) if error.code == ErrorCode::PermissionDenied && target.exists() => {
            let mut file = open_existing(&target).map_err(failed)?;
            file.set_len(0).and_then(|()| file.write_all(contents)).map_err(failed)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The file that a path means, its last links followed even where they lead nowhere yet.
///
/// # Errors
/// `invalid_request` when the links form a loop.
pub fn follow_links(path: &Path) -> Result<PathBuf, GuestError> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("/")).join(link),
            // Not a link, or nothing at all.
            Err(_) => return Ok(target),
        }
    }
    Err(failure::at(path, "write", &io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Opened for writing in the right to write to it, which taking its name would not ask for.
fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

// === impl Replacement ===

impl Replacement {
    /// Makes an empty file beside `target`, whose links have been followed, and the directories above it.
    ///
    /// # Errors
    /// That of the file system, or `is_directory`, or `permission_denied` when what stands there may not be written.
    pub fn begin(target: &Path) -> Result<Self, GuestError> {
        let failed = |error: io::Error| failure::at(target, "write", &error);
        let before = match fs::metadata(target) {
            Ok(metadata) if metadata.is_dir() => {
                let message = format!("{} is a directory; name a file", target.display());
                return Err(GuestError::new(ErrorCode::IsDirectory, message).with_path(target));
            }
            Ok(metadata) if !metadata.is_file() => return Err(not_a_file(target)),
            Ok(metadata) => {
                match open_existing(target) {
                    // A program that runs cannot be written to, but replaced.
                    Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {}
                    opened => drop(opened.map_err(failed)?),
                }
                Some(metadata)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let parent = target.parent().unwrap_or(Path::new("/"));
        if before.is_none() {
            fs::create_dir_all(parent).map_err(|error| failure::at(parent, "make the directory", &error))?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let temporary = format!(".emergent-upload-{}", random_name().map_err(failed)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed(error.into()))?;
        let target = target.to_owned();
        Ok(Self { file: file.into(), directory, temporary, target, before, settled: false })
    }

    /// Gives the file its name, with `mode`, or else the permissions of what stood there.
    ///
    /// # Errors
    /// That of the file system; what stood there is kept then.
    pub fn settle(mut self, mode: Option<u32>) -> Result<(), GuestError> {
        let failed = |error: io::Error| failure::at(&self.target, "write", &error);
        let kept = self.before.as_ref().map(|before| before.mode() & 0o7777);
        let mode = mode.or(kept).unwrap_or(NEW_FILE) & 0o7777;
        if let Some(before) = &self.before {
            // Only root may give files away; from another owner the agent takes the file over.
            let _ = std::os::unix::fs::fchown(&self.file, Some(before.uid()), Some(before.gid()));
        }
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        let Some(name) = self.target.file_name() else {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        };
        rustix::fs::renameat(&self.directory, &self.temporary, &self.directory, name)
            .map_err(|error| failed(error.into()))?;
        self.settled = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.settled {
            // Its name is random: nothing else can stand there.
            let _ = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}
