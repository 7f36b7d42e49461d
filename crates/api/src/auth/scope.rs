//! Scopes as words in JSON.

use emergent_store::Scope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The rights of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = Scope)]
pub enum ScopeName {
    /// See everything of the project.
    #[serde(rename = "admin:read")]
    AdminRead,
    /// Change everything of the project.
    #[serde(rename = "admin:write")]
    AdminWrite,
    /// Use the project's hosted MCP servers.
    #[serde(rename = "mcp:use")]
    McpUse,
}

impl From<Scope> for ScopeName {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::AdminRead => Self::AdminRead,
            Scope::AdminWrite => Self::AdminWrite,
            Scope::McpUse => Self::McpUse,
        }
    }
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::AdminRead => Self::AdminRead,
            ScopeName::AdminWrite => Self::AdminWrite,
            ScopeName::McpUse => Self::McpUse,
        }
    }
}
