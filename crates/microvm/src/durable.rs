//! Files and names that outlive a power cut.
//!
//! A write is on the disk when its file was synced, and a name when its directory was: the two are separate.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Waits until a file's contents and length, or a directory's names, are on the disk. Blocks.
///
/// # Errors
/// When they may not be.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a new file; its contents are on the disk when this returns, its name is when its directory was synced.
/// Blocks.
///
/// # Errors
/// When there is something of the name, or it cannot be written.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Renames what has been synced, in one file system; the new name is on the disk when this returns. Blocks.
///
/// # Errors
/// When it was not renamed, or may have its former name after a power cut.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    // Of a rename between two directories both have to be known, or a power cut may leave it under neither name.
    let (former, now) = (from.parent(), to.parent());
    let others = former.filter(|former| Some(*former) != now);
    now.into_iter().chain(others).try_for_each(sync)
}
