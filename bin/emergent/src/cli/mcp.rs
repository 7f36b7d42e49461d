//! `emergent mcp …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::{
    resources::{
        mcp_servers::request::{RestartPolicyName, SharingName},
        workspaces::view::Network,
    },
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
    /// Call a method and print its result.
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
    emergent mcp add own --image registry.example/own:1 --env TOKEN=…")]
pub(crate) struct McpAddArgs {
    /// Its name: a-z, 0-9 and -.
    pub(crate) name: String,
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
    /// A variable of its environment; kept encrypted.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A directory that survives restarts.
    #[arg(long, short, value_name = "NAME=/PATH", value_parser = pair)]
    pub(crate) volume: Vec<(String, String)>,
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
    /// Seconds to wait for it to run; 0 does not wait.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=900))]
    pub(crate) wait: u64,
    /// The program and its arguments; with a package, the arguments alone.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
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

impl McpAddArgs {
    /// How processes are shared, in the API's words.
    pub(crate) fn sharing(&self) -> Option<SharingName> {
        self.shared.then_some(SharingName::Shared)
    }
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
