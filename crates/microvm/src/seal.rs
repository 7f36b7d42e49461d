//! Seals: what a file was when it was put away whole, so that nobody goes on with half of it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use rustix::{fs::SeekFrom, io::Errno};
use serde::{Deserialize, Serialize};

/// The bytes that are looked at as one: a file system's hole is of whole blocks.
const BLOCK: usize = 4096;
const ZEROES: [u8; BLOCK] = [0; BLOCK];
/// The bytes that are read at a time.
const PIECE: usize = 256 * BLOCK;

/// The length of a file, and a checksum of its contents where reading them costs no more than what is done with it
/// anyway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32: Option<u32>,
}

// === impl Seal ===

impl Seal {
    /// A seal with the length alone, which costs nothing.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn of_length(file: &Path) -> io::Result<Self> {
        Ok(Self { bytes: fs::metadata(file)?.len(), crc32: None })
    }

    /// A seal with a checksum, too. Reads all of the file but its holes, which count like zeroes: a copy of it may have
    /// others. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_contents(file: &Path) -> io::Result<Self> {
        Ok(Self { crc32: Some(checksum(file)?), ..Self::of_length(file)? })
    }

    /// Compares a file with its seal; answers what is wrong with it, for people. The contents are compared where there
    /// is a checksum. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read. That it is not there is an answer.
    pub fn broken_by(&self, file: &Path) -> io::Result<Option<String>> {
        let found = match Self::of_length(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("it is missing".to_owned())),
            found => found?.bytes,
        };
        if found != self.bytes {
            return Ok(Some(format!("it has {found} bytes instead of {}", self.bytes)));
        }
        match self.crc32 {
            Some(crc32) if checksum(file)? != crc32 => Ok(Some("its contents are not what was written".to_owned())),
            _ => Ok(None),
        }
    }
}

/// CRC-32 over all blocks that are not zero, each after its number.
fn checksum(path: &Path) -> io::Result<u32> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut hash, mut piece) = (crc32fast::Hasher::new(), vec![0; PIECE]);
    let mut place = 0;
    while place < length {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(place)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
        // From the beginning of a block, also where the data begins within it, and never the same block twice.
        place = place.max(data - data % BLOCK as u64);
        while place < end {
            let wanted = usize::try_from(length - place).unwrap_or(usize::MAX).min(PIECE);
            let piece = &mut piece[..wanted];
            file.read_exact_at(piece, place)?;
            for block in piece.chunks(BLOCK) {
                if *block != ZEROES[..block.len()] {
                    hash.update(&(place / BLOCK as u64).to_le_bytes());
                    hash.update(block);
                }
                place += block.len() as u64;
            }
        }
    }
    Ok(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A large file with data at its beginning, in its middle and at its odd end.
    fn sparse(path: &Path) -> File {
        let file = File::create_new(path).unwrap();
        file.set_len((8 << 40) + 5).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"middle", (1 << 40) + 4000).unwrap();
        file.write_all_at(b"ends", (8 << 40) + 1).unwrap();
        file
    }

    #[test]
    fn a_hole_of_terabytes_costs_nothing_and_counts_like_zeroes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        sparse(&one);
        sparse(&other).write_all_at(&[0; 3 * BLOCK], 2 << 40).unwrap();
        let seal = Seal::of_contents(&one).unwrap();
        assert_eq!(Seal::of_contents(&other).unwrap(), seal);
        assert_eq!(seal.broken_by(&other).unwrap(), None);
    }

    #[test]
    fn what_is_hollow_shifted_shorter_or_gone_breaks_the_seal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 3 * BLOCK]).unwrap();
        let (seal, lengths) = (Seal::of_contents(&path).unwrap(), Seal::of_length(&path).unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        file.set_len(3 * BLOCK as u64).unwrap();
        assert!(seal.broken_by(&path).unwrap().unwrap().contains("contents"), "hollow");
        assert_eq!(lengths.broken_by(&path).unwrap(), None, "a length costs nothing and says no more");
        file.write_all_at(&vec![7; 2 * BLOCK], BLOCK as u64).unwrap();
        assert!(seal.broken_by(&path).unwrap().is_some(), "its first block is missing");
        file.set_len(5).unwrap();
        assert_eq!(lengths.broken_by(&path).unwrap().unwrap(), "it has 5 bytes instead of 12288");
        fs::remove_file(&path).unwrap();
        assert_eq!(seal.broken_by(&path).unwrap().unwrap(), "it is missing");
    }
}
