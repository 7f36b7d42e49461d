//! `emergent token …`.

use clap::{Args, Subcommand, ValueEnum};
use emergent_api::auth::ScopeName;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its secret is shown this once, on standard output.
    Create(TokenCreateArgs),
    /// List the tokens, without their secrets: your project's, or those of all projects with a token of the project
    /// `default`.
    Ls {
        /// Those of this project alone.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// Give a token a new secret; the old one stops working at once, and what is open by it ends.
    Rotate {
        /// The token's id or name.
        #[arg(value_name = "TOKEN")]
        given: String,
    },
    /// Revoke a token; it stops working at once, and what is open by it ends.
    Revoke {
        /// The token's id or name.
        #[arg(value_name = "TOKEN")]
        given: String,
    },
}

/// A token to make.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// What it is for.
    #[arg(long)]
    pub(crate) name: String,
    /// What it allows; give it again for more.
    #[arg(long = "scope", required = true, value_enum)]
    scopes: Vec<ScopeArg>,
    /// A hosted MCP server that it may use, or `server__tool` for one of its tools alone; give it again for more. All of
    /// the project's by default.
    #[arg(long = "mcp-server", value_name = "NAME")]
    pub(crate) mcp_servers: Vec<String>,
    /// Seconds until it stops working; never by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in_seconds: Option<u64>,
    /// The project that it opens, made if it is missing; your own by default. Only a token of the project `default` may
    /// name another.
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// See everything of the project.
    #[value(name = "admin:read")]
    AdminRead,
    /// Change everything of the project.
    #[value(name = "admin:write")]
    AdminWrite,
    /// Use the project's hosted MCP servers.
    #[value(name = "mcp:use")]
    McpUse,
}

impl TokenCreateArgs {
    /// The scopes, in the API's words.
    pub(crate) fn scopes(&self) -> Vec<ScopeName> {
        let name = |scope: &ScopeArg| match scope {
            ScopeArg::AdminRead => ScopeName::AdminRead,
            ScopeArg::AdminWrite => ScopeName::AdminWrite,
            ScopeArg::McpUse => ScopeName::McpUse,
        };
        self.scopes.iter().map(name).collect()
    }
}
