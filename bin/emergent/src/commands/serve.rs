//! `emergent serve`: gathers the settings and runs the server.

use std::path::{Path, PathBuf};

use crate::{
    cli::ServeArgs,
    config::{Config, ConfigError, Settings, env_vars},
    exit::ExitStatus,
    print, serve,
};

/// Runs the server until a stop signal.
pub(super) async fn run(arguments: &ServeArgs) -> ExitStatus {
    let config = match read_config(arguments.settings(), arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            print::error(&error.to_string());
            return ExitStatus::Usage;
        }
    };
    let claim = match (arguments.take_over, arguments.new_identity) {
        (_, true) => serve::Claim::NewIdentity,
        (true, false) => serve::Claim::TakeOver,
        (false, false) => serve::Claim::AsKnown,
    };
    match serve::run(config, claim).await {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            print::error(&format!("{error:#}"));
            ExitStatus::Failure
        }
    }
}

/// Reads the settings from flags, the environment and the file that either names.
pub(super) fn read_config(
    flags: impl IntoIterator<Item = (&'static env_vars::Variable, Option<String>)>,
    file: Option<&Path>,
) -> Result<Config, ConfigError> {
    let mut settings = Settings::default();
    let mut faults = Vec::new();
    settings.add_flags(flags);
    settings.add_environment(std::env::vars_os(), &mut faults);
    let named = settings.given(env_vars::EMERGENT_CONFIG).map(|(path, _)| PathBuf::from(path));
    if let Some(path) = file.map(Path::to_owned).or(named).filter(|path| !path.as_os_str().is_empty()) {
        settings.add_file(&path, &mut faults);
    }
    Config::read(&settings, faults)
}
