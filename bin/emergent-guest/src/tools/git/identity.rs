//! The identity of commits if none is configured: the same in the git tool and in commands.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The name.
pub const NAME: &str = "Emergent Workspaces Bot";
/// The address.
pub const EMAIL: &str = "bot@emergent.local";

/// Makes a configuration in `directory` that precedes the system's own, and so sets the identity only if neither that,
/// nor the user's, nor the repository's does. An existing file stays: somebody may have configured the system.
///
/// # Errors
/// When the file cannot be written.
pub fn provide(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("gitconfig");
    let text = format!("[user]\n\tname = {NAME}\n\temail = {EMAIL}\n[include]\n\tpath = /etc/gitconfig\n");
    match File::create_new(&path) {
        Ok(mut file) => file.write_all(text.as_bytes())?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}
