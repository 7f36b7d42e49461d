//! Walks trees with few system calls: under gVisor each call that names a path costs a query to the host for every
//! directory on it. So directories are opened from their parents, names are read in large batches with their kinds, and
//! nothing is queried of a file that is not wanted.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{Match, overrides::Override};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};

use super::ignored::Rules;
use crate::credentials::Caller;

/// The bytes of names that are read at once.
const NAMES: usize = 64 * 1024;

/// The files below a directory. Links are not followed, and directories that cannot be read are skipped: they are not
/// the agent's.
pub struct Walk<'a> {
    wanted: Wanted<'a>,
    /// The caller; the walk ends when the caller has gone.
    caller: &'a Caller,
    buffer: Vec<MaybeUninit<u8>>,
    directories: Vec<Pending>,
    files: Vec<Found>,
    /// The number of names that rules have left out.
    left_out: u64,
}

/// The selection of files.
pub struct Wanted<'a> {
    /// The pattern that files must match.
    pub pattern: &'a Override,
    /// The directories above the pattern's fixed part, relative to the root: they are entered whatever the rules say.
    pub named: PathBuf,
    /// The rules of `.gitignore` and the like, with which hidden names are left out, too; without, no names are left
    /// out.
    pub rules: Option<Arc<Rules>>,
    /// Whether links, pipes and sockets are left out.
    pub only_regular: bool,
}

/// A file, or an entry that a directory lists as one.
#[derive(Debug)]
pub struct Found {
    directory: Arc<Directory>,
    name: OsString,
}

/// An open directory.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// A directory that is yet to be read.
struct Pending {
    parent: Arc<Directory>,
    /// The parent's path from the root.
    below: PathBuf,
    name: OsString,
    rules: Option<Arc<Rules>>,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// Begins a walk below `root`.
    ///
    /// # Errors
    /// The file system's error for the root.
    pub fn begin(root: &Path, wanted: Wanted<'a>, caller: &'a Caller) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let root = Arc::new(Directory { fd, path: root.to_owned() });
        let rules = wanted.rules.clone();
        let mut walk = Self {
            wanted,
            caller,
            buffer: vec![MaybeUninit::uninit(); NAMES],
            directories: Vec::new(),
            files: Vec::new(),
            left_out: 0,
        };
        walk.list(&root, rules, Path::new(""))?;
        Ok(walk)
    }

    /// Returns how many names rules have left out so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Reads the entries of a directory. `below` is its path from the root.
    fn list(&mut self, directory: &Arc<Directory>, rules: Option<Arc<Rules>>, below: &Path) -> io::Result<()> {
        let mut entries: Vec<(OsString, FileType)> = Vec::new();
        let mut listing = RawDir::new(&directory.fd, &mut self.buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => entries.push((OsStr::from_bytes(name).to_owned(), entry.file_type())),
            }
        }
        let rules = rules.map(|rules| {
            let has = |name: &str| entries.iter().any(|(known, _)| known == name);
            rules.with_those_of(directory.fd.as_fd(), &directory.path, has)
        });
        for (name, kind) in entries {
            let kind = match kind {
                FileType::Unknown => kind_of(directory.fd.as_fd(), &name),
                known => known,
            };
            let is_directory = kind == FileType::Directory;
            let is_unwanted = self.wanted.only_regular && !is_directory && kind != FileType::RegularFile;
            if is_unwanted
                || name == ".git"
                || !self.wants(&directory.path, below, &name, is_directory, rules.as_deref())
            {
                continue;
            }
            match is_directory {
                true => {
                    let (parent, rules) = (Arc::clone(directory), rules.clone());
                    self.directories.push(Pending { parent, below: below.to_owned(), name, rules });
                }
                false => self.files.push(Found { directory: Arc::clone(directory), name }),
            }
        }
        Ok(())
    }

    fn wants(&mut self, at: &Path, below: &Path, name: &OsStr, is_directory: bool, rules: Option<&Rules>) -> bool {
        let path = below.join(name);
        match self.wanted.pattern.matched(&path, is_directory) {
            Match::Ignore(_) => return false,
            // Named by a pattern: then rules do not matter.
            Match::Whitelist(_) => return true,
            Match::None => {}
        }
        let Some(rules) = rules else { return true };
        if is_directory && self.wanted.named.starts_with(&path) {
            return true;
        }
        let leaves_out = match rules.matched(&at.join(name), is_directory) {
            Match::Ignore(()) => true,
            Match::Whitelist(()) => false,
            Match::None => name.as_bytes().starts_with(b"."),
        };
        self.left_out += u64::from(leaves_out);
        !leaves_out
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if self.caller.is_gone() {
                return None;
            }
            if let Some(file) = self.files.pop() {
                return Some(file);
            }
            let Pending { parent, below, name, rules } = self.directories.pop()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = rustix::fs::openat(&parent.fd, &name, flags, Mode::empty()) else { continue };
            let directory = Arc::new(Directory { fd, path: parent.path.join(&name) });
            // What was listed before an error is searched.
            drop(self.list(&directory, rules, &below.join(&name)));
        }
    }
}

// === impl Found ===

impl Found {
    /// Returns the file's path.
    pub fn path(&self) -> PathBuf {
        self.directory.path.join(&self.name)
    }

    /// Opens the file without waiting for anything.
    ///
    /// # Errors
    /// The file system's error.
    pub fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory.fd, &self.name, flags, Mode::empty())?.into())
    }

    /// Returns the time of the last change: seconds and nanoseconds since 1970.
    pub fn modified(&self) -> Option<(i64, u64)> {
        let stat = rustix::fs::statat(&self.directory.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_mtime, stat.st_mtime_nsec))
    }
}

/// Queries a file's kind, for file systems that do not tell it with the name.
fn kind_of(directory: BorrowedFd<'_>, name: &OsStr) -> FileType {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}
