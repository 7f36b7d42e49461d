//! `emergent server …`.

use clap::{Args, Subcommand};
use uuid::Uuid;

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers that share the database.
    Ls,
    /// Let the server take no new workspaces, for maintenance; those that it has go on.
    Drain,
    /// Let the server take new workspaces again.
    Undrain,
    /// List what the engine has that was handed over to somebody and that no row accounts for, as after the restore of a
    /// backup. It is kept for some days.
    Leftovers,
    /// Make a leftover a workspace, which is stopped, or a snapshot, which is ready.
    Adopt(AdoptArgs),
    /// Remove a leftover with all its files.
    RemoveLeftover {
        /// The leftover's id.
        id: Uuid,
    },
}

/// Which leftover becomes whose.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The leftover's id.
    pub(crate) id: Uuid,
    /// The name of the project that has it from now on; your own when left out.
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Its name, for people.
    #[arg(long)]
    pub(crate) name: Option<String>,
}
