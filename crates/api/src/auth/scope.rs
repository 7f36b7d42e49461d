//! Scopes and tools as words in JSON.

use emergent_store::{Scope, Tool};
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

/// A tool of workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = Tool)]
#[serde(rename_all = "snake_case")]
pub enum ToolName {
    /// Run commands and processes.
    Bash,
    /// Read files and directories.
    Read,
    /// Write, move and remove files.
    Write,
    /// Replace parts of files.
    Edit,
    /// Find files by their names.
    Glob,
    /// Find text in files.
    Grep,
    /// Use version control.
    Git,
}

impl From<Tool> for ToolName {
    fn from(tool: Tool) -> Self {
        match tool {
            Tool::Bash => Self::Bash,
            Tool::Read => Self::Read,
            Tool::Write => Self::Write,
            Tool::Edit => Self::Edit,
            Tool::Glob => Self::Glob,
            Tool::Grep => Self::Grep,
            Tool::Git => Self::Git,
        }
    }
}

impl From<ToolName> for Tool {
    fn from(name: ToolName) -> Self {
        match name {
            ToolName::Bash => Self::Bash,
            ToolName::Read => Self::Read,
            ToolName::Write => Self::Write,
            ToolName::Edit => Self::Edit,
            ToolName::Glob => Self::Glob,
            ToolName::Grep => Self::Grep,
            ToolName::Git => Self::Git,
        }
    }
}
