//! `emergent backup`.

use std::path::PathBuf;

use clap::Args;

/// The options of a backup.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; it must not exist yet.
    pub(crate) file: PathBuf,
    /// The settings file of the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server's data directory (EMERGENT_DATA_DIR).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The server's database (DATABASE_URL).
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl BackupArgs {
    /// Returns the settings that are given as flags.
    pub(crate) fn settings(&self) -> [(&'static crate::config::env_vars::Variable, Option<String>); 2] {
        use crate::config::env_vars::{DATABASE_URL, EMERGENT_DATA_DIR};
        [(EMERGENT_DATA_DIR, self.data_dir.clone()), (DATABASE_URL, self.database_url.clone())]
    }
}
