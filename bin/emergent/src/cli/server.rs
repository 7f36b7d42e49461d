//! `emergent server …`.

use clap::{Args, Subcommand};
use uuid::Uuid;

/// The commands for servers.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers that share the database.
    Ls,
    /// Let the server take no new workspaces, for maintenance; its existing workspaces go on.
    Drain,
    /// Let the server take new workspaces again.
    Undrain,
    /// List the engine's sandboxes and snapshots that have an owner but no row in the database, as after the restore of
    /// a backup. They are kept for some days.
    Leftovers,
    /// Turn a leftover into a workspace, which is stopped, or into a snapshot, which is ready.
    Adopt(AdoptArgs),
    /// Remove a leftover with all its files.
    RemoveLeftover {
        /// The leftover's id.
        id: Uuid,
    },
}

/// The options of an adoption.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The leftover's id.
    pub(crate) id: Uuid,
    /// The name of the project that gets the leftover; your own when left out.
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// A name for the workspace or snapshot, for people.
    #[arg(long)]
    pub(crate) name: Option<String>,
}
