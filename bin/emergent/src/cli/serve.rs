//! `emergent serve`.

use std::path::PathBuf;

use clap::Args;

use crate::config::env_vars::{self, Reader, Variable};

/// The options of the server. A flag overrides the environment, and the environment overrides the settings file.
#[derive(Debug, Args)]
#[command(after_help = "Settings come from flags, the environment and a file (see --help for all of them).")]
#[command(after_long_help = settings_help())]
pub(crate) struct ServeArgs {
    /// The settings file: TOML with the names below as keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The address to listen on (EMERGENT_LISTEN).
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The directory of the server's files (EMERGENT_DATA_DIR).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The server's database (DATABASE_URL).
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The server's certificates (EMERGENT_TLS_CERT).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's key (EMERGENT_TLS_KEY).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// The log filter, a level or directives such as info,emergent_core=debug (EMERGENT_LOG).
    #[arg(long, value_name = "DIRECTIVES")]
    log: Option<String>,
    /// The format of log messages, text or json (EMERGENT_LOG_FORMAT).
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Continue with the workspaces of the server whose data directory was copied or moved to this one. That server
    /// must never start again. Needed once.
    #[arg(long, conflicts_with = "new_identity")]
    pub(crate) take_over: bool,
    /// Become a server of its own, with a new id, if this data directory is a copy of another server's: workspaces,
    /// snapshots and hosted MCP servers stay with the other server. Needed once.
    #[arg(long)]
    pub(crate) new_identity: bool,
}

impl ServeArgs {
    /// Returns the settings that are given as flags.
    pub(crate) fn settings(&self) -> [(&'static Variable, Option<String>); 7] {
        [
            (env_vars::EMERGENT_LISTEN, self.listen.clone()),
            (env_vars::EMERGENT_DATA_DIR, self.data_dir.clone()),
            (env_vars::DATABASE_URL, self.database_url.clone()),
            (env_vars::EMERGENT_TLS_CERT, self.tls_cert.clone()),
            (env_vars::EMERGENT_TLS_KEY, self.tls_key.clone()),
            (env_vars::EMERGENT_LOG, self.log.clone()),
            (env_vars::EMERGENT_LOG_FORMAT, self.log_format.clone()),
        ]
    }
}

/// Returns the list of all settings.
fn settings_help() -> String {
    let entries = env_vars::ALL.iter().filter(|variable| variable.reader == Reader::Server).map(|variable| {
        let default = match variable.default {
            "" => "not set".to_owned(),
            default => format!("default {default}"),
        };
        format!("  {}  ({default})\n      {} Takes {}.", variable.name, variable.meaning.trim(), variable.takes)
    });
    let entries: Vec<_> = entries.collect();
    format!(
        "Settings, as environment variables or as keys of the settings file (in either case):\n\n{}\n\n\
         A flag goes before the environment, and that before the file. An unknown or malformed setting stops the \
         start.\n\nReaching the server from elsewhere: let it listen on 127.0.0.1, put a reverse proxy with TLS in \
         front of it, and name the public host in EMERGENT_ALLOWED_HOSTS; or set EMERGENT_TLS_CERT and \
         EMERGENT_TLS_KEY.",
        entries.join("\n")
    )
}
