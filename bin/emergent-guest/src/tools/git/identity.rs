//! The identity of commits where nobody has configured one: the same in the git tool and in commands.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The name.
pub const NAME: &str = "Emergent Workspaces Bot";
/// The address.
pub const EMAIL: &str = "bot@emergent.local";

/// Tells git where the system's configuration is.
pub const VARIABLE: &str = "GIT_CONFIG_SYSTEM";

/// Makes a configuration in `directory` that goes before the system's own, and so says who commits only where neither
/// that, nor the user's, nor the repository's does. One that is there stays: somebody may have configured the system.
///
/// # Errors
/// When it cannot be written.
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
