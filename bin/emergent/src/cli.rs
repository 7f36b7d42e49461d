//! The command line.

mod backup;
mod files;
mod firecracker;
mod firecracker_manager;
mod machine;
mod mcp;
mod project;
mod serve;
mod server;
mod session;
mod snapshot;
pub(crate) mod tips;
mod token;
mod workspace;

use clap::{Args, Parser, Subcommand};

pub(crate) use backup::BackupArgs;
pub(crate) use files::{FilesCommand, RemoveFilesArgs};
pub(crate) use firecracker::{FirecrackerCommand, NetHelperArgs, SetupArgs};
pub(crate) use firecracker_manager::FirecrackerManagerArgs;
pub(crate) use machine::{ImageBuildArgs, ImageCommand, KernelCommand, KernelImportArgs};
pub(crate) use mcp::{McpAddArgs, McpCommand, McpSpecArgs, McpUpdateArgs};
pub(crate) use project::{Limit, ProjectCommand, QuotaArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use server::{AdoptArgs, ServerCommand};
pub(crate) use session::{AttachArgs, DetachArgs, FixedLimits, IdleArgs, SessionsArgs, SetArgs};
pub(crate) use snapshot::{SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs};
pub(crate) use token::{TokenCommand, TokenCreateArgs};
pub(crate) use workspace::{
    AuditArgs, CreateArgs, ExecArgs, ForkArgs, ListArgs, LogsArgs, RemoveArgs, User, WorkspaceCommand,
};

/// Isolated workspaces for AI agents: the server, and the command line that speaks to it.
#[derive(Debug, Parser)]
#[command(name = "emergent", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "First steps:\n  \
    emergent doctor                     what this host can do, and how to mend what it can't\n  \
    ENABLE_AGENT_WORKSPACES=true emergent serve\n  \
    emergent workspace create --name try\n  \
    emergent workspace exec try -- python3 -c 'print(6 * 7)'\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage. `workspace exec` passes on the exit code of its command (128 + the \
    signal's number when a signal ended it), and ends with 125 when the command could not be run.")]
pub(crate) struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of this program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Run a manager of microVMs: a REST API of its own, for agents and for servers elsewhere.
    FirecrackerManager(FirecrackerManagerArgs),
    /// Tell what this host can and can't do, and how to mend it.
    Doctor(DoctorArgs),
    /// Print the server's address and the token as a shell's variables, for curl and other clients.
    #[command(
        after_help = "Example:\n  eval \"$(emergent env)\"\n  curl -H \"Authorization: Bearer $EMERGENT_TOKEN\" \
        $EMERGENT_SERVER/api/v1/agent/workspaces"
    )]
    Env(ClientArgs),
    /// Make workspaces and work in them.
    #[command(alias = "ws", subcommand_required = true)]
    Workspace(WithServer<WorkspaceCommand>),
    /// Keep the state of workspaces, and make others from it.
    #[command(subcommand_required = true)]
    Snapshot(WithServer<SnapshotCommand>),
    /// Host MCP servers and call them.
    #[command(subcommand_required = true)]
    Mcp(WithServer<McpCommand>),
    /// Make, list, rotate and revoke access tokens.
    #[command(subcommand_required = true)]
    Token(WithServer<TokenCommand>),
    /// List projects, and show and set how much each may have.
    #[command(subcommand_required = true)]
    Project(WithServer<ProjectCommand>),
    /// List the servers that share a database, and drain one for maintenance.
    #[command(subcommand_required = true)]
    Server(WithServer<ServerCommand>),
    /// Copy the rows of a server on SQLite into a file, whether it runs or not.
    Backup(BackupArgs),
    /// Prepare this host for microVMs, and run the helper that makes their networks.
    #[command(subcommand)]
    Firecracker(FirecrackerCommand),
    /// Take in the kernels that microVMs boot.
    #[command(subcommand_required = true)]
    Kernel {
        /// The command to run.
        #[command(subcommand)]
        command: KernelCommand,
    },
    /// Make the root file systems that microVMs run from.
    #[command(subcommand_required = true)]
    Image {
        /// The command to run.
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Print the API's OpenAPI document.
    Openapi,
}

/// A client command, with the arguments that all client commands share.
#[derive(Debug, Args)]
pub(crate) struct WithServer<C: Subcommand> {
    /// The server to call, and the form of the answers.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: C,
}

/// The server to call, and the form of the answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "The server and its answers")]
pub(crate) struct ClientArgs {
    /// The server's address; by default the one that the server of this data directory listens on.
    #[arg(long, global = true, env = "EMERGENT_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The token to send; by default the one in `bootstrap-token` in the data directory, where it can be read.
    #[arg(long, global = true, env = "EMERGENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A PEM file with the certificates of a private authority, trusted besides the system's own, for https.
    #[arg(long, global = true, env = "EMERGENT_CA_FILE", value_name = "FILE")]
    pub(crate) ca: Option<std::ffi::OsString>,
    /// The session to call for: refused once another one holds the workspace.
    #[arg(long, global = true, env = "EMERGENT_SESSION", value_name = "UUID")]
    pub(crate) session: Option<uuid::Uuid>,
    /// The server's data directory, to find the first token in.
    #[arg(long, global = true, env = "EMERGENT_DATA_DIR", value_name = "DIR", hide = true)]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// Answer with JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The options of `emergent doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 nothing fails, 1 something fails.")]
pub(crate) struct DoctorArgs {
    /// The settings file of the server that is to run here.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Answer with JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show what a server has left in Docker that exists no more, and remove it with --yes.
    #[arg(long, value_name = "SERVER_ID", conflicts_with = "json")]
    pub(crate) remove_leftovers: Option<uuid::Uuid>,
    /// Remove it.
    #[arg(long, requires = "remove_leftovers")]
    pub(crate) yes: bool,
}

/// Reads an argument such as `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
