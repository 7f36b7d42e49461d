//! The parts of a machine's memory that are written when it is saved: no more than is needed.
//!
//! | the machine | was saved before? | is written |
//! | --- | --- | --- |
//! | was booted | — | the pages that are in use; the rest of the file is a hole |
//! | was restored, from memory that is its alone | — | the pages that it has changed, into that same file |
//! | was restored, from memory that others read, too | — | all pages |
//!
//! A monitor maps the file that it was restored from and reads unchanged pages from it. Writing the changed pages into
//! that file is harmless to this monitor, as it has its own copies of just these; it would destroy another machine that
//! reads the file. So every machine keeps a name (a hard link) for its file for as long as it lives, and a file with
//! one name belongs to one machine alone.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::place::{BASE, UNKNOWN, VmmDir};

/// The way in which the memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saving {
    /// All pages.
    Full,
    /// The pages that changed since the existing file was made, or all pages in use if there is no file.
    Changed,
}

/// Prepares for the memory to be written to `target`, within the place. The monitor forgets which pages changed as soon
/// as it is asked for them: until [`Saving::done`] the existing file does not count as known, also after a crash.
pub(super) fn begin(place: &VmmDir, target: &Path, memory_mib: u32) -> io::Result<Saving> {
    let base = place.file(BASE);
    let there = match fs::metadata(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Booted. Pages that are swapped out would not be seen as in use.
            return Ok(if swaps()? { Saving::Full } else { Saving::Changed });
        }
        there => there?,
    };
    let unknown = place.file(UNKNOWN);
    let usable = !unknown.exists() && there.nlink() == 1 && there.len() == u64::from(memory_mib) << 20;
    fs::File::create(unknown)?;
    if !usable {
        return Ok(Saving::Full);
    }
    fs::hard_link(&base, target)?;
    if let Some(user) = place.user() {
        std::os::unix::fs::chown(target, Some(user), Some(user))?;
    }
    Ok(Saving::Changed)
}

// === impl Saving ===

impl Saving {
    /// Notes that the memory is written. Later changes are to be added to the same file, if changes were written to it.
    pub(super) fn done(self, place: &VmmDir) -> io::Result<()> {
        match self {
            Self::Full => Ok(()),
            Self::Changed => match fs::remove_file(place.file(UNKNOWN)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

/// Whether anything can be swapped out on this host.
fn swaps() -> io::Result<bool> {
    match fs::read_to_string("/proc/swaps") {
        Ok(text) => Ok(text.lines().count() > 1),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
