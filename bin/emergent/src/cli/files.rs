//! `emergent workspace files …`.

use clap::{Args, Subcommand};

/// The commands for files in workspaces. Paths are relative to /workspace unless they begin with /.
#[derive(Debug, Subcommand)]
pub(crate) enum FilesCommand {
    /// List a directory, or show a file.
    Ls {
        /// Id, beginning of an id, or name.
        workspace: String,
        /// The directory or file.
        #[arg(default_value = "/workspace")]
        path: String,
    },
    /// Remove files and directories; this works in a workspace whose disk is full, too.
    Rm(RemoveFilesArgs),
    /// Move or rename a file or directory; a file that stands at the new path is replaced.
    Mv {
        /// Id, beginning of an id, or name.
        workspace: String,
        /// The file or directory.
        from: String,
        /// The new path.
        to: String,
    },
    /// Make a directory, and the directories above it.
    Mkdir {
        /// Id, beginning of an id, or name.
        workspace: String,
        /// The directory.
        path: String,
    },
}

/// The files and directories to remove.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  emergent workspace files rm -r try build /tmp/cache")]
pub(crate) struct RemoveFilesArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The files and directories.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Take directories with all that is in them.
    #[arg(long, short)]
    pub(crate) recursive: bool,
}
