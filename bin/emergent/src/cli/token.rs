//! `emergent token …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::auth::{ScopeName, ToolName};

/// The commands for tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its secret is shown only once, on standard output.
    Create(TokenCreateArgs),
    /// List the tokens, without their secrets: your project's, or those of all projects with an administrator's token.
    Ls {
        /// List only the tokens of this project.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// Give a token a new secret; the old secret stops working at once, and connections that it opened end.
    Rotate {
        /// The token's id or name.
        #[arg(value_name = "TOKEN")]
        given: String,
    },
    /// Revoke a token; it stops working at once, and connections that it opened end.
    Revoke {
        /// The token's id or name.
        #[arg(value_name = "TOKEN")]
        given: String,
    },
}

/// A token to make.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// A name that tells the purpose of the token.
    #[arg(long)]
    pub(crate) name: String,
    /// A scope of the token; give it again for more.
    #[arg(long = "scope", required = true, value_enum)]
    scopes: Vec<ScopeArg>,
    /// A hosted MCP server that the token may use, or `server__tool` for only one of its tools; give it again for more.
    /// By default all servers of the project.
    #[arg(long = "mcp-server", value_name = "NAME")]
    pub(crate) mcp_servers: Vec<String>,
    /// The only workspace that the token may use, by its id or name; by default all of the project's.
    #[arg(long, value_name = "WORKSPACE")]
    pub(crate) workspace: Option<String>,
    /// A tool that the token may use in workspaces, and then nothing else that changes them; give it again for more. By
    /// default all.
    #[arg(long = "tool", value_name = "TOOL", value_enum)]
    tools: Vec<ToolArg>,
    /// Refuse calls of the token that name no session; for agents.
    #[arg(long)]
    pub(crate) no_operator: bool,
    /// The token does not administer the installation, although it is of the project `default`.
    #[arg(long)]
    pub(crate) no_administrator: bool,
    /// Seconds until the token stops working; never by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in_seconds: Option<u64>,
    /// The project that the token opens, made if it is missing; your own by default. Only an administrator's token may
    /// name another.
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// Read everything in the project.
    #[value(name = "admin:read")]
    AdminRead,
    /// Change everything in the project.
    #[value(name = "admin:write")]
    AdminWrite,
    /// Use the project's hosted MCP servers.
    #[value(name = "mcp:use")]
    McpUse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ToolArg {
    /// Commands and processes.
    Bash,
    /// Reading files and directories.
    Read,
    /// Writing, moving and removing files.
    Write,
    /// Replacing parts of files.
    Edit,
    /// Finding files by their names.
    Glob,
    /// Finding text in files.
    Grep,
    /// Version control.
    Git,
}

impl TokenCreateArgs {
    /// Returns the tools, as the API names them; `None` where none was named.
    pub(crate) fn tools(&self) -> Option<Vec<ToolName>> {
        let name = |tool: &ToolArg| match tool {
            ToolArg::Bash => ToolName::Bash,
            ToolArg::Read => ToolName::Read,
            ToolArg::Write => ToolName::Write,
            ToolArg::Edit => ToolName::Edit,
            ToolArg::Glob => ToolName::Glob,
            ToolArg::Grep => ToolName::Grep,
            ToolArg::Git => ToolName::Git,
        };
        (!self.tools.is_empty()).then(|| self.tools.iter().map(name).collect())
    }

    /// Returns the scopes, as the API names them.
    pub(crate) fn scopes(&self) -> Vec<ScopeName> {
        let name = |scope: &ScopeArg| match scope {
            ScopeArg::AdminRead => ScopeName::AdminRead,
            ScopeArg::AdminWrite => ScopeName::AdminWrite,
            ScopeArg::McpUse => ScopeName::McpUse,
        };
        self.scopes.iter().map(name).collect()
    }
}
