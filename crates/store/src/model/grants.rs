//! The grants of a token: its permissions, and the resources to which they are bound.

use std::{collections::BTreeSet, fmt, str::FromStr};

use emergent_types::WorkspaceId;

use crate::McpAllowList;

/// The permissions of a token, each bound to the resources that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The permissions.
    pub scopes: Vec<Scope>,
    /// Whether the holder administers the installation: sees all projects, and changes what belongs to none.
    pub is_administrator: bool,
    /// Whether the holder may call a workspace that a session holds without naming the session, as an operator does.
    pub is_operator: bool,
    /// The only workspace that the holder may use; `None` for all of the project's.
    pub workspace: Option<WorkspaceId>,
    /// The tools that the holder may use in workspaces; `None` for all, and for what changes workspaces themselves.
    pub tools: Option<BTreeSet<Tool>>,
    /// The hosted MCP servers that the holder may use; `None` for all of the project's.
    pub mcp: Option<McpAllowList>,
}

/// A permission that a token grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// See everything of the project.
    AdminRead,
    /// Change everything of the project.
    AdminWrite,
    /// Use the project's hosted MCP servers.
    McpUse,
}

/// A tool of workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
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

/// A word that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no scope is called {0:?}; there are admin:read, admin:write and mcp:use")]
pub struct UnknownScope(String);

/// A word that names no tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tool is called {0:?}; there are bash, read, write, edit, glob, grep and git")]
pub struct UnknownTool(String);

// === impl Grants ===

impl Grants {
    /// Returns these permissions on everything of a project.
    #[must_use]
    pub fn on_project(scopes: Vec<Scope>) -> Self {
        Self { scopes, is_administrator: false, is_operator: true, workspace: None, tools: None, mcp: None }
    }

    /// Returns whether the permission was granted: by name, or as a part of another permission.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        // Who may change everything may use what is there.
        let is_bound = self.workspace.is_some() || self.tools.is_some();
        let is_implied = scope == Scope::McpUse && self.scopes.contains(&Scope::AdminWrite) && !is_bound;
        is_implied || self.scopes.contains(&scope)
    }
}

// === impl Scope ===

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::AdminRead, Self::AdminWrite, Self::McpUse];

    /// The scope's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminRead => "admin:read",
            Self::AdminWrite => "admin:write",
            Self::McpUse => "mcp:use",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

// === impl Tool ===

impl Tool {
    /// All tools.
    pub const ALL: [Self; 7] = [Self::Bash, Self::Read, Self::Write, Self::Edit, Self::Glob, Self::Grep, Self::Git];

    /// Returns the tool's name in rows, in JSON and for agents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::Git => "git",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tool {
    type Err = UnknownTool;

    fn from_str(text: &str) -> Result<Self, UnknownTool> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == text).ok_or_else(|| UnknownTool(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_change_everything_may_use_servers_and_is_not_thereby_let_to_see() {
        let granted = |scopes: &[Scope]| Grants::on_project(scopes.to_vec());
        assert!(granted(&[Scope::AdminWrite]).has(Scope::McpUse));
        assert!(!granted(&[Scope::AdminWrite]).has(Scope::AdminRead));
        assert!(!granted(&[Scope::AdminRead]).has(Scope::McpUse));
        assert!(granted(&[Scope::McpUse]).has(Scope::McpUse));
        assert!(!granted(&[]).has(Scope::AdminRead));
        // Whoever may use some tools alone has no others by way of a hosted server.
        let reader = Grants { tools: Some([Tool::Read].into()), ..granted(&[Scope::AdminWrite]) };
        let bound = Grants { workspace: Some(WorkspaceId::generate()), ..granted(&[Scope::AdminWrite]) };
        assert!(!reader.has(Scope::McpUse) && !bound.has(Scope::McpUse));
    }

    #[test]
    fn a_tool_is_known_by_its_name() {
        for tool in Tool::ALL {
            assert_eq!(tool.as_str().parse(), Ok(tool));
        }
        assert!("ssh".parse::<Tool>().unwrap_err().to_string().contains("\"ssh\""));
    }
}
