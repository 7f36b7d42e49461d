//! `emergent backup`: a copy of the rows, whole even while the server writes.

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
