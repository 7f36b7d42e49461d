//! `emergent server …`.

use clap::Subcommand;

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers that share the database.
    Ls,
    /// Let the server take no new workspaces, for maintenance; those that it has go on.
    Drain,
    /// Let the server take new workspaces again.
    Undrain,
}
