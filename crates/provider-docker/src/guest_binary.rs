//! The guest's executable: open for as long as the provider lives, and read only when an engine needs it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// The static executable that containers run first.
#[derive(Debug, Clone)]
pub struct GuestBinary {
    file: Arc<Mutex<File>>,
    size: u64,
    hash: String,
    architecture: Architecture,
}

/// A file that cannot be the guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestBinaryError {
    /// The file cannot be read.
    #[error("the guest binary {} cannot be read", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is no executable that a container could run.
    #[error(
        "{} is not a 64-bit Linux executable for x86_64 or aarch64; build the guest with `make build`, or set \
         EMERGENT_GUEST_PATH", .0.display()
    )]
    NotAGuest(PathBuf),
}

/// A processor architecture that guests are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    Aarch64,
}

// === impl GuestBinary ===

impl GuestBinary {
    /// Opens and reads the file once. A file that takes its name later has no effect.
    ///
    /// # Errors
    /// [`GuestBinaryError`].
    pub fn open(path: &Path) -> Result<Self, GuestBinaryError> {
        let unreadable = |source| GuestBinaryError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let bytes = contents(&mut file).map_err(unreadable)?;
        let architecture = Architecture::of(&bytes).ok_or_else(|| GuestBinaryError::NotAGuest(path.to_owned()))?;
        Ok(Self { file: Arc::new(Mutex::new(file)), size: bytes.len() as u64, hash: sha256(&bytes), architecture })
    }

    /// Reads the file's bytes from the disk.
    ///
    /// # Errors
    /// When they cannot be read, or the file was changed since it was opened.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let bytes = contents(&mut self.file.lock())?;
        if sha256(&bytes) == self.hash {
            return Ok(bytes);
        }
        Err(io::Error::other("the guest binary has been written to since the server started; start the server again"))
    }

    /// Returns the number of bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the SHA-256 of the bytes, as hexadecimal digits.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// Returns the architecture that the guest was built for.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }
}

// === impl Architecture ===

impl Architecture {
    /// Returns the architecture's name in `uname -m` and in the engine.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Returns the architecture that an executable was built for, from its ELF header.
    fn of(executable: &[u8]) -> Option<Self> {
        let header = executable.first_chunk::<20>()?;
        let is_elf64_little_endian = header.starts_with(b"\x7fELF\x02\x01");
        match (is_elf64_little_endian, u16::from_le_bytes([header[18], header[19]])) {
            (true, 62) => Some(Self::X86_64),
            (true, 183) => Some(Self::Aarch64),
            _ => None,
        }
    }
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The SHA-256 of some bytes, as hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0 and what follows";

    #[test]
    fn what_takes_its_name_later_does_not_matter_and_what_is_written_into_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("guest"), folder.path().join("old"));
        std::fs::write(&path, ELF).unwrap();
        let binary = GuestBinary::open(&path).unwrap();
        assert_eq!((binary.architecture(), binary.size()), (Architecture::X86_64, ELF.len() as u64));
        std::fs::rename(&path, &old).unwrap();
        std::fs::write(&path, "another").unwrap();
        assert_eq!(binary.read().unwrap(), ELF);
        File::options().append(true).open(&old).unwrap().write_all(b"more").unwrap();
        assert!(binary.read().is_err());
        assert!(matches!(GuestBinary::open(&path), Err(GuestBinaryError::NotAGuest(_))));
        assert!(matches!(GuestBinary::open(&folder.path().join("none")), Err(GuestBinaryError::Unreadable { .. })));
    }
}
