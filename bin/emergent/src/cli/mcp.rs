//! `emergent mcp …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::{
    resources::{mcp_servers::request::RestartPolicyName, workspaces::view::Network},
    size::ByteSize,
};

use super::workspace::pair;

/// What to do with hosted MCP servers.
#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Register an MCP server and start it.
    Add(McpAddArgs),
    /// List hosted MCP servers.
    Ls,
    /// Show an MCP server, and how clients connect to it.
    Show {
        /// Its name or id.
        #[arg(value_name = "SERVER")]
        name: String,
    },
    /// Change an MCP server; what is not named stays as it is.
    Update(McpUpdateArgs),
    /// Call a method and print its result: a tool's text as text, other results as JSON.
    #[command(
        after_help = "Exit codes: 0 done, 1 failed, which a tool says with isError. With --json the whole result is printed."
    )]
    Call {
        /// The server's name or id.
        #[arg(value_name = "SERVER")]
        name: String,
        /// A method such as tools/list, or the name of a tool.
        method: String,
        /// Parameters, or the tool's arguments: a JSON object.
        #[arg(default_value = "{}")]
        params: String,
        /// Seconds that it may take.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Speak MCP on standard input and output, for clients that know nothing else.
    #[command(after_help = "In a client's settings:\n  \
        {\"command\": \"emergent\", \"args\": [\"mcp\", \"connect\", \"--workspace\", \"my-workspace\"]}")]
    Connect {
        /// A hosted server's name or id.
        #[arg(value_name = "SERVER", required_unless_present = "workspace", conflicts_with = "workspace")]
        name: Option<String>,
        /// A workspace instead, whose tools are a server, too: its id, the beginning of it, or its name.
        #[arg(long, value_name = "WORKSPACE")]
        workspace: Option<String>,
    },
    /// Show what a server has written on its standard error, and how it last ended.
    Logs {
        /// Its name or id.
        #[arg(value_name = "SERVER")]
        name: String,
    },
    /// Copy files and directories into a server's container or out of it.
    #[command(after_help = "Examples:\n  \
        emergent mcp cp ./notes files:/workspace\n  \
        emergent mcp cp files:/data/out.csv .")]
    Cp {
        /// A local path, SERVER:PATH, or - for standard input (one file's contents).
        from: String,
        /// A local path, SERVER:PATH, or - for standard output (a file's contents, a directory's tar).
        to: String,
    },
    /// End a server's processes in order and start it again.
    Restart {
        /// Its name or id.
        #[arg(value_name = "SERVER")]
        name: String,
    },
    /// Delete servers with their containers, volumes and secrets.
    Rm {
        /// Their names or ids.
        #[arg(required = true, value_name = "SERVER")]
        servers: Vec<String>,
    },
}

/// A server to register.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emergent mcp add clock --pypi mcp-server-time\n  \
    emergent mcp add files --npm @modelcontextprotocol/server-filesystem -- /workspace\n  \
    emergent mcp add code --pypi mcp-server-git --share repo=my-workspace:/repo:rw -- --repository /repo\n  \
    emergent mcp add own --image registry.example/own:1 --env TOKEN=…\n\n\
    Exit codes: 0 it runs (or was not waited for), 1 it does not: what its program has said last is shown.")]
pub(crate) struct McpAddArgs {
    /// Its name: a-z, 0-9 and -.
    pub(crate) name: String,
    /// What it is.
    #[command(flatten)]
    pub(crate) what: McpSpecArgs,
    /// Seconds to wait for its first answer.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=900))]
    pub(crate) wait: u64,
    /// Do not wait for its first answer.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
}

/// What a server is to be from now on.
#[derive(Debug, Args)]
#[command(
    after_help = "What runs goes on where only --timeout or --restart changes. Volumes that are not named stay.\n\n\
    Examples:\n  \
    emergent mcp update clock --timeout 120\n  \
    emergent mcp update files --share code=my-workspace:/code --no-volume old -- /workspace /code"
)]
pub(crate) struct McpUpdateArgs {
    /// Its name or id.
    #[arg(value_name = "SERVER")]
    pub(crate) name: String,
    /// What it is.
    #[command(flatten)]
    pub(crate) what: McpSpecArgs,
    /// A process for each session.
    #[arg(long, conflicts_with = "shared")]
    pub(crate) per_session: bool,
    /// Its processes do not run as root inside.
    #[arg(long, conflicts_with = "root")]
    pub(crate) no_root: bool,
    /// A volume that it is not to have any more: one of its own is deleted, a workspace's stays the workspace's.
    #[arg(long, value_name = "NAME")]
    pub(crate) no_volume: Vec<String>,
}

/// What a server is.
#[derive(Debug, Args)]
pub(crate) struct McpSpecArgs {
    /// Its image; the server's default image when left out.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A package of npm's registry, installed once; the server then runs without a network.
    #[arg(long, value_name = "PACKAGE[@VERSION]", conflicts_with = "pypi")]
    pub(crate) npm: Option<String>,
    /// A package of Python's registry, installed once; the server then runs without a network.
    #[arg(long, value_name = "PACKAGE[==VERSION]")]
    pub(crate) pypi: Option<String>,
    /// Pins what the package depends on; give it again for more.
    #[arg(long, value_name = "REQUIREMENT")]
    pub(crate) constraint: Vec<String>,
    /// A variable of its environment; kept encrypted. All variables are set anew: one that is not given again goes.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A directory that survives restarts.
    #[arg(long, short, value_name = "NAME=/PATH", value_parser = pair)]
    pub(crate) volume: Vec<(String, String)>,
    /// The /workspace of a workspace, seen at a path of the server's: ro (the default) or rw.
    #[arg(long, value_name = "NAME=WORKSPACE:/PATH[:rw]", value_parser = share)]
    pub(crate) share: Vec<ShareArg>,
    /// What happens when it ends by itself.
    #[arg(long, value_enum)]
    pub(crate) restart: Option<RestartArg>,
    /// One process for all clients rather than one for each session.
    #[arg(long)]
    pub(crate) shared: bool,
    /// It is an HTTP-based server that listens on this port.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The path of an HTTP-based server's endpoint.
    #[arg(long, requires = "port", value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// CPU cores.
    #[arg(long)]
    pub(crate) cpu: Option<f64>,
    /// Memory, such as 512M.
    #[arg(long)]
    pub(crate) memory: Option<ByteSize>,
    /// Disk, such as 1G.
    #[arg(long)]
    pub(crate) disk: Option<ByteSize>,
    /// What it may reach.
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkArg>,
    /// Its processes run as root inside.
    #[arg(long)]
    pub(crate) root: bool,
    /// Seconds that a call may take; 30 when left out.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: Option<u64>,
    /// The program and its arguments; with a package, the arguments alone.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// A workspace that a server is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareArg {
    /// The volume's name.
    pub(crate) volume: String,
    /// The workspace as it was given.
    pub(crate) workspace: String,
    /// Where it is inside.
    pub(crate) path: String,
    /// The server may write there.
    pub(crate) writable: bool,
}

/// What happens when a server ends by itself.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RestartArg {
    /// It is started again.
    Always,
    /// It is started again unless it ended with 0.
    OnFailure,
    /// It stays as it is.
    Never,
}

/// What a server may reach.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NetworkArg {
    /// Nothing.
    None,
    /// A network interface and nothing beyond it.
    Isolated,
    /// The internet.
    Outbound,
}

impl From<RestartArg> for RestartPolicyName {
    fn from(argument: RestartArg) -> Self {
        match argument {
            RestartArg::Always => Self::Always,
            RestartArg::OnFailure => Self::OnFailure,
            RestartArg::Never => Self::Never,
        }
    }
}

impl From<NetworkArg> for Network {
    fn from(argument: NetworkArg) -> Self {
        match argument {
            NetworkArg::None => Self::None,
            NetworkArg::Isolated => Self::Isolated,
            NetworkArg::Outbound => Self::Outbound,
        }
    }
}

/// Reads `NAME=WORKSPACE:/PATH[:ro|:rw]`.
fn share(text: &str) -> Result<ShareArg, String> {
    let read = || {
        let (volume, rest) = text.split_once('=')?;
        let (workspace, rest) = rest.split_once(':')?;
        let (path, writable) = match rest.rsplit_once(':') {
            Some((path, "rw")) => (path, true),
            Some((path, "ro")) => (path, false),
            Some(_) => return None,
            None => (rest, false),
        };
        let whole = !volume.is_empty() && !workspace.is_empty() && path.starts_with('/');
        let [volume, workspace, path] = [volume, workspace, path].map(str::to_owned);
        whole.then_some(ShareArg { volume, workspace, path, writable })
    };
    read().ok_or_else(|| "write it as NAME=WORKSPACE:/PATH, with :rw at the end if it is to be written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_names_a_workspace_a_path_and_whether_it_is_written() {
        let shared = |text: &str| share(text).map(|it| (it.volume, it.workspace, it.path, it.writable));
        let expected = |writable| Ok(("code".to_owned(), "my-ws".to_owned(), "/a/b".to_owned(), writable));
        assert_eq!(shared("code=my-ws:/a/b"), expected(false));
        assert_eq!(shared("code=my-ws:/a/b:ro"), expected(false));
        assert_eq!(shared("code=my-ws:/a/b:rw"), expected(true));
        for wrong in ["code", "code=my-ws", "code=my-ws:a", "=my-ws:/a", "code=:/a", "code=my-ws:/a:x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
