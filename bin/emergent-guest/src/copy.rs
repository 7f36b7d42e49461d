//! `emergent-guest copy-trees`: copies whole trees, with all attributes of their files.
//!
//! The files belong to an agent, who may have put anything there. Nothing is ever opened by a path: each name is taken
//! from its directory and opened in it without following a link, so a copy cannot lead out of either tree. Links are
//! copied as links, hard links as links of each other, holes as holes, pipes and sockets as new ones. Devices are left
//! out: a workspace cannot make any.
//!
//! The copying begins when a line comes on standard input: the caller starts the program before it freezes the tree.
//! The program answers with one line: the numbers of bytes of the trees, or the error.
//!
//! Nobody may change the tree meanwhile; then the copy is of one moment.

pub(crate) mod attributes;
mod contents;

use std::{
    collections::HashMap,
    ffi::CStr,
    fmt,
    io::{self, BufRead, Read as _, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use self::contents::Contents;

/// The most bytes of a path that are shown.
const SHOWN_BYTES: usize = 512;
/// The most bytes of the awaited line that are read.
const TOLD_BYTES: u64 = 64;

/// The error of a file that could not be copied.
#[derive(Debug, thiserror::Error)]
pub struct CopyError {
    /// The file's path, from the top of the tree.
    path: Vec<u8>,
    #[source]
    source: io::Error,
}

/// A directory that is being copied.
struct Level {
    /// The entries that are left to copy.
    entries: Dir,
    to: OwnedFd,
    stat: Stat,
    /// The length of the path without this directory's name.
    path_before: usize,
}

struct Copier {
    /// The directories from the top down to the one that is being copied.
    levels: Vec<Level>,
    /// The path of that directory.
    path: Vec<u8>,
    /// The copies of files that have several names, by their inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    top: OwnedFd,
    contents: Contents,
    bytes: u64,
}

/// Waits for a line, copies as [`tree`] does, and answers with a line. Does nothing when the input ends before.
///
/// # Errors
/// When the input cannot be read or the answer cannot be written.
pub fn when_told(pairs: &[(PathBuf, PathBuf)], mut told: impl BufRead, mut answer: impl Write) -> io::Result<()> {
    if told.by_ref().take(TOLD_BYTES).read_line(&mut String::new())? == 0 {
        return Ok(());
    }
    match pairs.iter().map(|(from, to)| tree(from, to)).collect::<Result<Vec<_>, _>>() {
        Ok(bytes) => writeln!(answer, "{}", bytes.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
        Err(error) => writeln!(answer, "{error}"),
    }
}

/// Copies the contents and the attributes of the directory `from` into the empty directory `to`. Returns how many bytes
/// the files have on the disk.
///
/// # Errors
/// [`CopyError`] for the first file that could not be copied; files that were copied before are left.
pub fn tree(from: &Path, to: &Path) -> Result<u64, CopyError> {
    allow_many_files();
    let opened = || {
        let from = rustix::fs::openat(CWD, from, DIRECTORY, Mode::empty())?;
        let to = rustix::fs::openat(CWD, to, DIRECTORY, Mode::empty())?;
        let (top, stat) = (rustix::io::fcntl_dupfd_cloexec(&to, 0)?, rustix::fs::fstat(&from)?);
        let first = Level { entries: Dir::new(from)?, to, stat, path_before: 0 };
        let contents = Contents::new();
        Ok(Copier { levels: vec![first], path: Vec::new(), links: HashMap::new(), top, contents, bytes: 0 })
    };
    let mut copier = opened().map_err(|error: Errno| CopyError { path: Vec::new(), source: error.into() })?;
    copier.run().map_err(|error| CopyError { path: copier.path, source: error.into() })?;
    Ok(copier.bytes)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Raises the limit of open files: two are open for each level of the tree.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Best effort: only a very deep tree needs more.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

// === impl Copier ===

impl Copier {
    fn run(&mut self) -> Result<(), Errno> {
        while let Some(level) = self.levels.last_mut() {
            match level.entries.read() {
                Some(entry) => {
                    let entry = entry?;
                    let name = entry.file_name();
                    if name != c"." && name != c".." {
                        self.entry(name)?;
                    }
                }
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Copies the entry of this name in the current directory; a directory becomes the current one.
    fn entry(&mut self, name: &CStr) -> Result<(), Errno> {
        let path_before = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        let Some(level) = self.levels.last() else { return Ok(()) };
        let (from, to) = (level.entries.fd()?, level.to.as_fd());
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let from = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let to = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
            self.levels.push(Level { entries: Dir::new(from)?, to, stat, path_before });
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink < 2 {
            leaf(from, to, name, &stat, &mut self.contents)?;
        } else if !link(self.links.get(&inode), self.top.as_fd(), to, name)? {
            leaf(from, to, name, &stat, &mut self.contents)?;
            // From the top of the tree, without the slash that would lead out of it.
            self.links.insert(inode, self.path[1..].to_vec());
        }
        self.path.truncate(path_before);
        Ok(())
    }

    /// Leaves a directory whose entries are copied. Sets its times last, since each entry has changed them.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        attributes::copy(level.entries.fd()?, level.to.as_fd(), &level.stat)?;
        self.path.truncate(level.path_before);
        Ok(())
    }
}

/// Gives a copy one more name. Returns false when there is no copy yet, or none that can have another name.
fn link(copy: Option<&Vec<u8>>, top: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let Some(copy) = copy else { return Ok(false) };
    match rustix::fs::linkat(top, copy.as_slice(), to, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // Where it stands is too deep, or it has as many names as it may.
        Err(Errno::NAMETOOLONG | Errno::MLINK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies an entry that is no directory.
fn leaf(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    contents: &mut Contents,
) -> Result<(), Errno> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NONBLOCK | flags, Mode::empty())?;
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
            let to = rustix::fs::openat(to, name, new, Mode::RUSR | Mode::WUSR)?;
            contents.copy(from.as_fd(), to.as_fd(), u64::try_from(stat.st_size).unwrap_or(0))?;
            attributes::copy(from.as_fd(), to.as_fd(), stat)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            attributes::copy_to_name(to, name, stat)
        }
        kind @ (FileType::Fifo | FileType::Socket) => {
            rustix::fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, 0)?;
            attributes::copy_to_name(to, name, stat)
        }
        FileType::Directory | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => Ok(()),
    }
}

// === impl CopyError ===

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.path[self.path.len().saturating_sub(SHOWN_BYTES)..];
        let path = String::from_utf8_lossy(if shown.is_empty() { b"/" } else { shown });
        let what = match self.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => "no space is left on the engine's disk; make room there".to_owned(),
            Some(Errno::MFILE | Errno::NFILE) => {
                let levels = path.matches('/').count();
                format!("directories are nested too deep ({levels} levels and more); flatten them")
            }
            _ => self.source.to_string(),
        };
        write!(f, "{path:?}: {what}")
    }
}

#[cfg(test)]
mod tests;
