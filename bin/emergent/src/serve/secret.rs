//! The key that secrets in rows are encrypted with, where nobody has given one: made once, in a file that its owner alone
//! can read.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use emergent_mcp_hosting::SecretKey;

/// The key in the data directory.
pub(super) fn key_of(data_dir: &Path) -> anyhow::Result<SecretKey> {
    let path = data_dir.join("secret-key");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = SecretKey::generate_hex().context("the system has no random numbers")?;
            write_new(&path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
            text
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    SecretKey::from_hex(text.trim()).with_context(|| {
        format!("{} holds no key; put the key back, since secrets in rows cannot be read without it", path.display())
    })
}

/// Writes a file whole or not at all.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(new, path)
}
