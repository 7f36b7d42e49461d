//! The unpacking of an archive that may be hostile: it writes nothing outside of its target, and takes bounded memory.

use std::{
    cell::Cell,
    fs,
    io::{self, Read},
    path::Path,
};

use tar::{Archive, EntryType};

/// The most bytes with which an archive describes one entry: its name and attributes, which are in memory as a whole.
const LARGEST_HEAD: u64 = 1 << 20;
/// The most bytes that describe directories which are made at the end.
const MOST_AT_END: u64 = 64 << 20;
/// The permissions without which nothing can be made in a directory.
const TO_MAKE: u32 = 0o700;

/// A reader of an archive that ends with an error where a head is too large.
struct Heads<'a, R> {
    reader: R,
    /// How much of a head may still be read; `None` while contents are read.
    left: &'a Cell<Option<u64>>,
}

/// Unpacks an archive into a directory, which is made if it is not there.
pub(super) fn all(reader: impl Read, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    let into = into.canonicalize()?;
    let left = Cell::new(None);
    let mut archive = Archive::new(Heads { reader, left: &left });
    let mut entries = archive.entries()?;
    let (mut at_end, mut described) = (Vec::new(), 0);
    loop {
        left.set(Some(LARGEST_HEAD));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        let read = LARGEST_HEAD - left.replace(None).unwrap_or(0);
        // What is in a directory could not be made any more with its own permissions.
        if entry.header().entry_type() == EntryType::Directory && entry.header().mode()? & TO_MAKE != TO_MAKE {
            described += read;
            if described > MOST_AT_END {
                return Err(io::Error::other("the archive has too many directories that their owner cannot write to"));
            }
            at_end.push(entry);
        } else {
            // Refuses what would leave the directory.
            entry.unpack_in(&into)?;
        }
    }
    // What is below comes before what is above it.
    at_end.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    at_end.into_iter().try_for_each(|mut directory| directory.unpack_in(&into).map(drop))
}

// === impl Heads ===

impl<R: Read> Read for Heads<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get() else { return self.reader.read(buffer) };
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the archive has an entry whose name and attributes take more than 1 MiB"));
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..room])?;
        self.left.set(Some(left - read as u64));
        Ok(read)
    }
}
