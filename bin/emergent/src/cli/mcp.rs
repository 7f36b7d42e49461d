//! `emergent mcp …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::{
    http::size::ByteSize,
    resources::{mcp_servers::request::RestartPolicyName, workspaces::view::Network},
};

use super::pair;

/// The commands for hosted MCP servers.
#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Register an MCP server and start it.
    Add(McpAddArgs),
    /// List hosted MCP servers.
    Ls,
    /// Show an MCP server, and how clients connect to it.
    Show {
        /// The server's name or id.
        #[arg(value_name = "SERVER")]
        name: String,
    },
    /// Change an MCP server; settings that are not given stay as they are.
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
        /// The most seconds that the call may take.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Speak MCP on standard input and output, for clients that know no other transport.
    #[command(after_help = "In a client's settings:\n  \
        {\"command\": \"emergent\", \"args\": [\"mcp\", \"connect\", \"--workspace\", \"my-workspace\"]}")]
    Connect {
        /// A hosted server's name or id.
        #[arg(value_name = "SERVER", required_unless_present = "workspace", conflicts_with = "workspace")]
        name: Option<String>,
        /// The workspace whose tools to serve instead: its id, the beginning of its id, or its name.
        #[arg(long, value_name = "WORKSPACE")]
        workspace: Option<String>,
    },
    /// Show a server's standard error, and how the server last ended.
    Logs {
        /// The server's name or id.
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
        /// The server's name or id.
        #[arg(value_name = "SERVER")]
        name: String,
    },
    /// Delete servers with their containers, volumes and secrets.
    Rm {
        /// The servers' names or ids.
        #[arg(required = true, value_name = "SERVER")]
        servers: Vec<String>,
    },
}

/// A server to register.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emergent mcp add clock --pypi mcp-server-time\n  \
    emergent mcp add files --npm @modelcontextprotocol/server-filesystem -- /workspace\n  \
    emergent mcp add code --pypi mcp-server-git --share repo=my-workspace:/repo:rw -- --repository /repo/project\n  \
    emergent mcp add own --image registry.example/own:1 --env TOKEN=…\n\n\
    Exit codes: 0 it runs (or was not waited for), 1 it does not: what its program has said last is shown.")]
pub(crate) struct McpAddArgs {
    /// The server's name: a-z, 0-9 and -.
    pub(crate) name: String,
    /// The settings of the server.
    #[command(flatten)]
    pub(crate) what: McpSpecArgs,
    /// Seconds to wait for the server's first answer.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=900))]
    pub(crate) wait: u64,
    /// Do not wait for the server's first answer.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
}

/// The changes of a server.
#[derive(Debug, Args)]
#[command(
    after_help = "What runs goes on where only --timeout or --restart changes. Volumes that are not named stay.\n\n\
    Examples:\n  \
    emergent mcp update clock --timeout 120\n  \
    emergent mcp update files --share code=my-workspace:/code --no-volume old -- /workspace /code"
)]
pub(crate) struct McpUpdateArgs {
    /// The server's name or id.
    #[arg(value_name = "SERVER")]
    pub(crate) name: String,
    /// The new settings of the server.
    #[command(flatten)]
    pub(crate) what: McpSpecArgs,
    /// Run a process for each session.
    #[arg(long, conflicts_with = "shared")]
    pub(crate) per_session: bool,
    /// Do not run the server's processes as root inside the container.
    #[arg(long, conflicts_with = "root")]
    pub(crate) no_root: bool,
    /// A volume to remove from the server: one of its own is deleted, a workspace's stays the workspace's.
    #[arg(long, value_name = "NAME")]
    pub(crate) no_volume: Vec<String>,
}

/// The settings of a server.
#[derive(Debug, Args)]
pub(crate) struct McpSpecArgs {
    /// The image of the server's container; the default image of Emergent's server when left out.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A package of npm's registry, installed once; the server then runs without a network.
    #[arg(long, value_name = "PACKAGE[@VERSION]", conflicts_with = "pypi")]
    pub(crate) npm: Option<String>,
    /// A package of Python's registry, installed once; the server then runs without a network.
    #[arg(long, value_name = "PACKAGE[==VERSION]")]
    pub(crate) pypi: Option<String>,
    /// A version to pin one of the package's dependencies to; give it again for more.
    #[arg(long, value_name = "REQUIREMENT")]
    pub(crate) constraint: Vec<String>,
    /// A variable of the server's environment; kept encrypted. All variables are set anew: one that is not given again
    /// is removed.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A directory whose files survive restarts.
    #[arg(long, short, value_name = "NAME=/PATH", value_parser = pair)]
    pub(crate) volume: Vec<(String, String)>,
    /// A workspace whose /workspace the server sees at a path: ro (the default) or rw.
    #[arg(long, value_name = "NAME=WORKSPACE:/PATH[:rw]", value_parser = share)]
    pub(crate) share: Vec<ShareArg>,
    /// Whether to start the server again when it ends by itself.
    #[arg(long, value_enum)]
    pub(crate) restart: Option<RestartArg>,
    /// Run one process for all clients rather than one for each session.
    #[arg(long)]
    pub(crate) shared: bool,
    /// The port on which an HTTP-based server listens.
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
    /// The networks that the server may reach.
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkArg>,
    /// Run the server's processes as root inside the container.
    #[arg(long)]
    pub(crate) root: bool,
    /// The most seconds that a call may take; 30 when left out.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: Option<u64>,
    /// The program and its arguments; with a package, the arguments alone.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// A workspace that a server is given access to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareArg {
    /// The volume's name.
    pub(crate) volume: String,
    /// The workspace as the caller named it.
    pub(crate) workspace: String,
    /// The path inside the container.
    pub(crate) path: String,
    /// Whether the server may write to the workspace.
    pub(crate) writable: bool,
}

/// Whether a server that ends by itself is started again.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RestartArg {
    /// The server is always started again.
    Always,
    /// The server is started again unless it ended with 0.
    OnFailure,
    /// The server is not started again.
    Never,
}

/// The networks that a server may reach.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NetworkArg {
    /// No network.
    None,
    /// A network interface without any route out.
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
