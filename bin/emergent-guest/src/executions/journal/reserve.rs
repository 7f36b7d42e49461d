//! Space for the journal on a disk that others may fill. It is given back when the disk is full: in a start and in a
//! stop nothing else writes, so that the journal is the one to get it.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use crate::own_files;

/// How much is kept. The records of an execution are about as long as its command.
const BYTES: u64 = 256 * 1024;

/// The reserve is taken again only when this many times its size is free, so that users who remove files get space
/// first.
const ROOM: u64 = 4;

/// A file that holds the space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_kept: bool,
}

impl Reserve {
    /// The reserve that an earlier guest may have left at `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        let is_kept = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == BYTES);
        Self { path, is_kept }
    }

    /// Whether the space is there.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Gives the space back; says whether there was any.
    pub(super) fn give_back(&mut self) -> bool {
        std::mem::take(&mut self.is_kept) && fs::remove_file(&self.path).is_ok()
    }

    /// Takes the space, if it is not there.
    ///
    /// # Errors
    /// `StorageFull` while too little is free; the kernel's.
    pub(super) fn take(&mut self) -> io::Result<()> {
        if self.is_kept {
            return Ok(());
        }
        let directory = self.path.parent().unwrap_or(&self.path);
        let disk = rustix::fs::statvfs(directory)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM * BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let filled = own_files::create(&self.path, 0o600)
            .and_then(|mut file| io::copy(&mut io::repeat(0).take(BYTES), &mut file));
        match filled {
            Ok(_) => self.is_kept = true,
            // A part of it is of no use here, and of some to others.
            Err(_) => drop(own_files::clear(&self.path)),
        }
        filled.map(drop)
    }
}
