//! The programs that a run starts, and where they are.

use std::path::{Path, PathBuf};

/// The folders in which Debian keeps root's programs.
const SBIN: &str = "/usr/sbin:/sbin";

/// The path of a program.
pub fn on_path(name: &str) -> Option<PathBuf> {
    path().split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The path, with the folders that only root's has.
pub fn path() -> String {
    format!("{}:{SBIN}", std::env::var("PATH").unwrap_or_default())
}
