//! Packs the contents of a directory, name by name from open directories: a tree may be deeper than the longest path.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The flags for opening a file. Without NONBLOCK the opening of a pipe, which may have taken the file's place, waits
/// for a writer.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A directory whose entries are being packed. One file is open for each level of the tree.
struct Level {
    entries: Dir,
    /// The length of the path of the directory that this one is in.
    path_before: usize,
}

/// Adds all files below a directory, by paths relative to it. Sockets, pipes and devices are left out, and so are files
/// that are removed while the tree is read.
pub(super) fn pack<W: Write>(builder: &mut tar::Builder<W>, directory: OwnedFd) -> io::Result<()> {
    let mut path = Vec::new();
    let mut levels = vec![Level { entries: Dir::new(directory)?, path_before: 0 }];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.read() else {
            path.truncate(level.path_before);
            levels.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path_before = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        match add(builder, level.entries.fd()?, name, Path::new(OsStr::from_bytes(&path)))? {
            Some(below) => levels.push(Level { entries: Dir::new(below)?, path_before }),
            None => path.truncate(path_before),
        }
    }
    Ok(())
}

/// Adds one entry; returns the directory if the entry is one, since its entries follow.
fn add<W: Write>(
    builder: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    name: &CStr,
    path: &Path,
) -> io::Result<Option<OwnedFd>> {
    let Some(stat) = unless_gone(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))? else { return Ok(None) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let opened = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
            let Some(directory) = unless_gone(opened)? else { return Ok(None) };
            builder.append_data(&mut header_of(&stat, tar::EntryType::Directory), path, io::empty())?;
            Ok(Some(directory))
        }
        FileType::Symlink => {
            if let Some(target) = unless_gone(rustix::fs::readlinkat(parent, name, Vec::new()))? {
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                builder.append_link(&mut header_of(&stat, tar::EntryType::Symlink), path, target)?;
            }
            Ok(None)
        }
        FileType::RegularFile => {
            if let Some(file) = unless_gone(rustix::fs::openat(parent, name, FILE, Mode::empty()))? {
                let mut file = File::from(file);
                if file.metadata()?.is_file() {
                    super::pack_file(builder, path, &mut file)?;
                }
            }
            Ok(None)
        }
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Ok(None)
        }
    }
}

/// Returns the result of opening a name; `None` when the name is gone, or another kind of file by now.
fn unless_gone<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn header_of(stat: &Stat, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
