//! `emergent snapshot …`.

use clap::{Args, Subcommand};

use super::pair;

/// The commands for snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of a workspace; a workspace that runs stands still while its files are copied.
    Create(SnapshotCreateArgs),
    /// List snapshots, newest first.
    Ls(SnapshotListArgs),
    /// Delete snapshots; workspaces that were made from them go on.
    Rm {
        /// Ids, beginnings of ids, or names.
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
    },
}

/// A snapshot to take.
#[derive(Debug, Args)]
pub(crate) struct SnapshotCreateArgs {
    /// Id, beginning of an id, or name of the workspace.
    pub(crate) workspace: String,
    /// A name, for people.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label, in place of the workspace's.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Seconds to wait for it to be ready; 0 does not wait.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) wait: u64,
}

/// The snapshots to list.
#[derive(Debug, Args)]
pub(crate) struct SnapshotListArgs {
    /// Of this workspace.
    #[arg(long, value_name = "WORKSPACE")]
    pub(crate) workspace: Option<String>,
    /// With exactly this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// With this label.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Option<(String, String)>,
    /// Only the ids, one a line.
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}
