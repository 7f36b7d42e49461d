//! The key that secrets in rows are encrypted with, where nobody has given one: made once, in a file that its owner
//! alone can read.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::Context as _;
use emergent_sealing::SecretKey;

use super::private_file;

/// The key in the data directory.
pub(super) fn key_of(data_dir: &Path) -> anyhow::Result<SecretKey> {
    let path = data_dir.join("secret-key");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = SecretKey::generate_hex().context("the system has no random numbers")?;
            private_file::write(&path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
            text
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    SecretKey::from_hex(text.trim()).with_context(|| {
        format!("{} holds no key; put the key back, since secrets in rows cannot be read without it", path.display())
    })
}
