//! The file that a call is about to change: its directory is open, so that later changes of the path do not matter, and
//! its links are followed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use emergent_guest_proto::{ErrorCode, GuestError};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Stat},
    io::Errno,
};

use super::open::not_a_file;
use crate::{failure, file_locks::LockKey};

/// The most symbolic links that the kernel follows.
const MAX_LINKS: usize = 40;

/// A file, or the place of one that does not exist yet.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

// === impl Target ===

impl Target {
    /// Finds the file that a path refers to.
    ///
    /// # Errors
    /// The file system's error for the directory, or `invalid_request` when links form a loop.
    pub fn find(path: &Path) -> Result<Self, GuestError> {
        Self::at(follow_links(path)?)
    }

    /// Finds the file and makes missing parent directories.
    ///
    /// # Errors
    /// The errors of [`Target::find`].
    pub fn prepare(path: &Path) -> Result<Self, GuestError> {
        let path = follow_links(path)?;
        match Self::at(path.clone()) {
            Err(error) if error.code == ErrorCode::NotFound => {
                let parent = parent_of(&path);
                fs::create_dir_all(parent).map_err(|error| failure::at(parent, "make the directory", &error))?;
                Self::at(path)
            }
            target => target,
        }
    }

    /// Finds the entry at a path itself; a link is not followed.
    ///
    /// # Errors
    /// The file system's error for the directory.
    pub fn at(path: PathBuf) -> Result<Self, GuestError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(parent_of(&path), flags, Mode::empty());
        let directory = opened.map_err(|error| failure::at(&path, "open", &error.into()))?;
        // Of `/` or `a/..` only the directory itself is left; it is none that a file can have.
        let name = path.file_name().map_or_else(|| ".".into(), OsStr::to_owned);
        Ok(Self { path, directory, name })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory that the file is in.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns the file's name in its directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns the lock of the file's name: of its directory and its name in it, by whatever path it was reached.
    ///
    /// # Errors
    /// The file system's error.
    pub fn key_of_name(&self) -> Result<LockKey, GuestError> {
        let directory = rustix::fs::fstat(&self.directory).map_err(|error| self.failed("open", &error.into()))?;
        Ok(LockKey::of((directory.st_dev, directory.st_ino, &self.name)))
    }

    /// Returns the lock of the file's contents: that of its name, unless the file has several names.
    ///
    /// # Errors
    /// The file system's error.
    pub fn key_of_contents(&self) -> Result<LockKey, GuestError> {
        match self.stat()? {
            Some(stat) if stat.st_nlink > 1 => Ok(LockKey::of((stat.st_dev, stat.st_ino))),
            Some(_) | None => self.key_of_name(),
        }
    }

    /// Reads the entry's metadata, a link not followed; `None` when there is no entry.
    ///
    /// # Errors
    /// The file system's error.
    pub fn stat(&self) -> Result<Option<Stat>, GuestError> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("look at", &error.into())),
        }
    }

    /// Opens the file for reading; `None` when there is none.
    ///
    /// # Errors
    /// The file system's error, `is_directory`, or `invalid_request` for an entry that is no file.
    pub fn open(&self) -> Result<Option<(File, Metadata)>, GuestError> {
        let opened = self.open_with(OFlags::RDONLY).map_err(|error| self.failed("open", &error))?;
        opened.map(|file| self.checked(file)).transpose()
    }

    /// Opens the file for writing; `None` when there is none, or when it is a running program: that cannot be written
    /// to, but replaced.
    ///
    /// # Errors
    /// The errors of [`Target::open`].
    pub fn open_for_writing(&self) -> Result<Option<(File, Metadata)>, GuestError> {
        match self.open_with(OFlags::WRONLY) {
            Ok(opened) => opened.map(|file| self.checked(file)).transpose(),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETXTBSY) => Ok(None),
                Some(libc::EISDIR) => Err(self.is_directory()),
                _ => Err(self.failed("write", &error)),
            },
        }
    }

    /// Makes the error of an operation on the file, such as "write".
    pub fn failed(&self, operation: &str, error: &io::Error) -> GuestError {
        failure::at(&self.path, operation, error)
    }

    fn open_with(&self, access: OFlags) -> io::Result<Option<File>> {
        // Without NONBLOCK the opening of a pipe waits for another.
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn checked(&self, file: File) -> Result<(File, Metadata), GuestError> {
        let metadata = file.metadata().map_err(|error| self.failed("open", &error))?;
        match () {
            () if metadata.is_file() => Ok((file, metadata)),
            () if metadata.is_dir() => Err(self.is_directory()),
            () => Err(not_a_file(&self.path)),
        }
    }

    fn is_directory(&self) -> GuestError {
        let message = format!("{} is a directory; name a file", self.path.display());
        GuestError::new(ErrorCode::IsDirectory, message).with_path(self.path.as_path())
    }
}

/// Whether the file must be written in place to keep its identity: if replaced, a file with several names would be
/// split in two, and another user's file would become the caller's, as only root gives files away.
pub fn must_be_kept(metadata: &Metadata) -> bool {
    let caller = rustix::process::geteuid();
    metadata.nlink() > 1 || (!caller.is_root() && metadata.uid() != caller.as_raw())
}

/// Returns the path that a path leads to, its last links followed even if their target does not exist yet.
fn follow_links(path: &Path) -> Result<PathBuf, GuestError> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = parent_of(&target).join(link),
            // Not a link, or nothing at all.
            Err(_) => return Ok(target),
        }
    }
    Err(failure::at(path, "open", &io::Error::from_raw_os_error(libc::ELOOP)))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
