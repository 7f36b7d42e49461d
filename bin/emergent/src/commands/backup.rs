//! `emergent backup`: a copy of the database, whole even while the server writes.

use std::{io, os::unix::fs::DirBuilderExt as _, path::Path};

use emergent_store::backup;

use crate::{cli::BackupArgs, exit::ExitStatus, print};

/// Makes the copy.
pub(super) async fn run(arguments: &BackupArgs) -> ExitStatus {
    let config = match super::serve::read_config(arguments.settings(), arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            print::error(&error.to_string());
            return ExitStatus::Usage;
        }
    };
    if let Err(error) = make_directory(&arguments.file) {
        print::error(&format!("the directory of {} cannot be made: {error}", arguments.file.display()));
        return ExitStatus::Failure;
    }
    match backup(&config.database, &arguments.file).await {
        Ok(()) => {
            print::line(&format!("{} is a copy of {}", arguments.file.display(), config.database));
            ExitStatus::Success
        }
        Err(error) => {
            print::error(&format!("{:#}", anyhow::Error::from(error)));
            ExitStatus::Failure
        }
    }
}

/// Makes the directory of a backup if it is missing, for its owner alone.
fn make_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}
