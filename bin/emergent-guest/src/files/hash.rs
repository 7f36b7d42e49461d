//! The hash by which callers name contents.

use std::io;

use emergent_guest_proto::Sha256Hex;
use sha2::{Digest as _, Sha256};

/// Hashes the bytes that are written to it.
#[derive(Default)]
pub struct Hasher(Sha256);

/// Returns the hash of bytes in memory.
pub fn hash(bytes: &[u8]) -> Sha256Hex {
    let mut hasher = Hasher::default();
    hasher.0.update(bytes);
    hasher.finish()
}

// === impl Hasher ===

impl Hasher {
    /// Returns the hash of all bytes that were written.
    pub fn finish(self) -> Sha256Hex {
        Sha256Hex::from(<[u8; 32]>::from(self.0.finalize()))
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
