//! The folder of a run, and the variables that tell the processes inside of it.

use std::path::PathBuf;

use anyhow::Context as _;

/// The variable with the run's folder.
pub const FOLDER: &str = "SOAK_FOLDER";
/// The variable with the cgroup that the engine puts containers below.
pub const CGROUP: &str = "SOAK_CGROUP";

/// The folder of the run that this process is in.
///
/// # Errors
/// When this process is in none.
pub fn folder() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(std::env::var_os(FOLDER).with_context(|| format!("{FOLDER} is not set; run `make soak`"))?))
}

/// The disk that the engine and the servers share.
///
/// # Errors
/// As [`folder`].
pub fn disk() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join("disk"))
}
