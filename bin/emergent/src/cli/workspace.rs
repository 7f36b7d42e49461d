//! `emergent workspace …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::http::size::ByteSize;
use emergent_guest_proto::{ExecutionId, Stream};

use super::{
    files::FilesCommand,
    pair,
    session::{AttachArgs, DetachArgs, IdleArgs, SessionsArgs, SetArgs},
};

/// The commands for workspaces. A workspace is named by its id, by the beginning of its id, or by its name.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace, and wait until it is ready.
    Create(CreateArgs),
    /// List workspaces, newest first.
    Ls(ListArgs),
    /// Show everything about workspaces.
    Show(WorkspacesArgs),
    /// Run a command in a workspace, with its output as it is written and its exit code.
    Exec(ExecArgs),
    /// Copy files and directories into a workspace or out of it.
    Cp(CopyArgs),
    /// List, remove and move files, and make directories.
    #[command(subcommand)]
    Files(FilesCommand),
    /// Show the output of an execution, from its beginning.
    Logs(LogsArgs),
    /// Show what was done in and with a workspace, newest first.
    Audit(AuditArgs),
    /// Change a workspace: its name, its labels, its end, what happens when nobody uses it.
    Set(SetArgs),
    /// Hold a workspace: one agent at a time.
    Attach(AttachArgs),
    /// Let a workspace go.
    Detach(DetachArgs),
    /// List who held a workspace when.
    Sessions(SessionsArgs),
    /// Make copies of a workspace, each with its files of this moment.
    Fork(ForkArgs),
    /// Stop workspaces: processes end, files stay.
    Stop(WorkspacesArgs),
    /// Freeze workspaces with their processes.
    Pause(WorkspacesArgs),
    /// Let paused workspaces go on, and start stopped ones.
    #[command(visible_alias = "start")]
    Resume(WorkspacesArgs),
    /// Destroy workspaces and all that is in them.
    Rm(RemoveArgs),
}

/// Some workspaces.
#[derive(Debug, Args)]
pub(crate) struct WorkspacesArgs {
    /// Ids, beginnings of ids, or names.
    #[arg(required = true, value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<String>,
}

/// Some workspaces to destroy.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Ids, beginnings of ids, or names.
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "WORKSPACE")]
    pub(crate) workspaces: Vec<String>,
    /// All workspaces of the project: they are listed, and destroyed after a confirmation.
    #[arg(long)]
    pub(crate) all: bool,
    /// Destroy all without asking.
    #[arg(long, short, requires = "all")]
    pub(crate) yes: bool,
}

/// A workspace to make.
#[derive(Debug, Args)]
#[command(after_help = "Ctrl-C before it is ready destroys it again.")]
pub(crate) struct CreateArgs {
    /// A name, for people and commands.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The image whose files and programs it has; the server's default image when left out.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: Option<String>,
    /// The snapshot that it is made from: its id, the beginning of its id, or its name.
    #[arg(long, conflicts_with = "image")]
    pub(crate) snapshot: Option<String>,
    /// The kind of sandbox that it is made as; a named one never falls back to another.
    #[arg(long, value_parser = ["auto", "gvisor", "firecracker", "e2b"])]
    pub(crate) provider: Option<String>,
    /// How many CPU cores it may use; 0.5 is half a core.
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<f64>,
    /// How much memory it may use, such as 512M or 4G; 64M at least.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// How much its files may take, such as 10G; 64M at least. It cannot be changed later.
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<ByteSize>,
    /// How many processes and threads it may have.
    #[arg(long, value_name = "COUNT")]
    pub(crate) pids: Option<u32>,
    /// The network of the workspace: none, an interface with nothing beyond it (isolated), or the internet (outbound).
    #[arg(long, value_parser = ["none", "isolated", "outbound"])]
    pub(crate) network: Option<String>,
    /// A variable in the environment of its commands; give it again for more.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A label, to find it by; give it again for more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Let commands run as root inside.
    #[arg(long)]
    pub(crate) allow_root: bool,
    /// Days until it may be destroyed; 0 for never.
    #[arg(long, value_name = "DAYS")]
    pub(crate) ttl_days: Option<f64>,
    /// The action on the workspace when nobody uses it.
    #[command(flatten)]
    pub(crate) idle: IdleArgs,
    /// A word of your own: for 24 hours, a create that is repeated with it makes no second workspace.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Seconds to wait for it to be ready; 0 does not wait.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

/// Copies to make.
#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// Id, beginning of an id, or name of the workspace.
    pub(crate) workspace: String,
    /// How many copies.
    #[arg(long, short = 'n', default_value_t = 1, value_name = "COUNT")]
    pub(crate) count: u32,
    /// Their name; several have their numbers after it.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label, in place of the workspace's.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// An environment variable, besides the workspace's.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Days until they may be destroyed; 0 for never.
    #[arg(long, value_name = "DAYS")]
    pub(crate) ttl_days: Option<f64>,
    /// Seconds to wait for them to be ready; 0 does not wait.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) wait: u64,
}

/// The workspaces to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// In one of these states, such as `ready,paused`.
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// With exactly this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// With this label.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) label: Option<(String, String)>,
    /// Of this provider.
    #[arg(long, value_parser = ["gvisor", "firecracker", "e2b"])]
    pub(crate) provider: Option<String>,
    /// Destroyed ones too.
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Only the ids, one a line.
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// A command to run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  emergent workspace exec try -- ls -la\n  \
    emergent workspace exec try -c 'cd project && make'\n\n\
    Ctrl-C cancels the execution inside, and a second one leaves at once. Losing the connection \
    does not end the command: find it with `emergent workspace logs WORKSPACE EXECUTION --follow`.\n\n\
    Exit codes: the command's own; 128 + the signal's number when a signal ended it; 124 when its time was over; 125 \
    when it could not be run or was lost; 127 when the image has no such program.")]
pub(crate) struct ExecArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The directory to run in; /workspace by default.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// An environment variable.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Whom the command runs as.
    #[arg(long, short, value_enum, default_value_t = User::Agent)]
    pub(crate) user: User,
    /// End the command after so many seconds; never by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<f64>,
    /// Pass standard input on.
    #[arg(long, short, conflicts_with = "detach")]
    pub(crate) interactive: bool,
    /// Asked for out of habit; a command has no terminal.
    #[arg(long, short, hide = true)]
    pub(crate) tty: bool,
    /// Start the command, print its execution id and leave it running.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Name the execution.
    #[arg(long, value_name = "ID")]
    pub(crate) execution_id: Option<ExecutionId>,
    /// A line for the workspace's shell, in place of a program and its arguments.
    #[arg(long, short = 'c', value_name = "LINE", conflicts_with = "command")]
    pub(crate) shell: Option<String>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Whom a command runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum User {
    /// uid 1000.
    Agent,
    /// root, where the workspace allows it.
    Root,
}

/// The source and the target of a copy.
#[derive(Debug, Args)]
#[command(
    after_help = "A path in a workspace is written WORKSPACE:PATH, relative to /workspace unless it begins with /. \
    A directory is copied with all that is in it. Into a directory that exists, the copy keeps its name.\n\n\
    Examples:\n  emergent workspace cp ./src try:project\n  emergent workspace cp try:project/report.html .\n  \
    tar c . | emergent workspace exec -i try -- tar x\n  emergent workspace cp try:/etc/os-release -"
)]
pub(crate) struct CopyArgs {
    /// A local path, WORKSPACE:PATH, or - for standard input (one file's contents).
    pub(crate) from: String,
    /// A local path, WORKSPACE:PATH, or - for standard output (a file's contents, a directory's tar).
    pub(crate) to: String,
}

/// The execution and the streams to show the output of.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 shown, 1 failed, or the execution was lost: its workspace ended under it.")]
pub(crate) struct LogsArgs {
    /// Id, beginning of an id, or name.
    pub(crate) workspace: String,
    /// The execution's id; left out: the executions are listed, or the newest is followed.
    pub(crate) execution: Option<ExecutionId>,
    /// Go on until the execution ends.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this stream.
    #[arg(long, value_parser = stream)]
    pub(crate) stream: Option<Stream>,
}

/// The audit rows to show.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Id, beginning of an id, or name; the id of a destroyed one too. Left out: all workspaces of the project.
    pub(crate) workspace: Option<String>,
    /// Of this kind.
    #[arg(long, value_parser = ["tool", "lifecycle"])]
    pub(crate) kind: Option<String>,
    /// Of this action, such as bash or destroy.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// With this outcome.
    #[arg(long, value_parser = ["ok", "refused", "failed", "timed_out", "abandoned"])]
    pub(crate) outcome: Option<String>,
    /// Under this session.
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Begun at this time or later, such as 2026-11-21T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Begun before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    pub(crate) limit: usize,
}

fn stream(text: &str) -> Result<Stream, String> {
    match text {
        "stdout" => Ok(Stream::Stdout),
        "stderr" => Ok(Stream::Stderr),
        _ => Err("there are stdout and stderr".to_owned()),
    }
}
