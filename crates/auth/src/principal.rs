//! The principal of a request, and the principal's rights.

use emergent_store::{McpAllowList, ProjectId, Scope, Token, TokenId};

/// The one who makes a request, with all rights that the request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token that proved the principal; its id is not a secret.
    pub token: TokenId,
    /// The token's name, for people.
    pub name: String,
    /// The project whose rows the principal sees.
    pub project: ProjectId,
    /// The permissions that were granted to the principal.
    pub scopes: Vec<Scope>,
    /// The hosted MCP servers that the principal may use; `None` for all of the project's.
    pub mcp: Option<McpAllowList>,
    /// Whether the principal is an administrator of the server: a holder of a token of the server's default project.
    pub is_administrator: bool,
}

// === impl Principal ===

impl Principal {
    /// Returns the holder of a token, on a server with this default project.
    #[must_use]
    pub fn holder_of(token: Token, default_project: ProjectId) -> Self {
        let is_administrator = token.project == default_project;
        let Token { id, name, project, scopes, mcp, .. } = token;
        Self { token: id, name, project, scopes, mcp, is_administrator }
    }

    /// Returns whether the principal has the permission: granted by name, or a part of another permission.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        // Who may change everything may use what is there.
        let is_implied = scope == Scope::McpUse && self.scopes.contains(&Scope::AdminWrite);
        is_implied || self.scopes.contains(&scope)
    }

    /// Returns the project whose tokens and figures the principal sees; `None` for an administrator, who sees those of
    /// all projects.
    #[must_use]
    pub fn sees(&self) -> Option<ProjectId> {
        (!self.is_administrator).then_some(self.project)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn holder(scopes: &[Scope], default_project: impl FnOnce(ProjectId) -> ProjectId) -> Principal {
        let project = ProjectId::generate();
        let token = Token {
            id: TokenId::generate(),
            project,
            name: "test".to_owned(),
            scopes: scopes.to_vec(),
            mcp: None,
            created_at: Utc::now(),
            rotated_at: None,
            expires_at: None,
            revoked_at: None,
        };
        Principal::holder_of(token, default_project(project))
    }

    #[test]
    fn who_may_change_everything_may_use_servers_and_is_not_thereby_let_to_see() {
        let holder = |scopes: &[Scope]| holder(scopes, |own| own);
        assert!(holder(&[Scope::AdminWrite]).has(Scope::McpUse));
        assert!(!holder(&[Scope::AdminWrite]).has(Scope::AdminRead));
        assert!(!holder(&[Scope::AdminRead]).has(Scope::McpUse));
        assert!(holder(&[Scope::McpUse]).has(Scope::McpUse));
        assert!(!holder(&[]).has(Scope::AdminRead));
    }

    #[test]
    fn holders_of_the_default_project_s_tokens_see_all_projects() {
        let (administrator, other) = (holder(&[], |own| own), holder(&[], |_| ProjectId::generate()));
        assert_eq!((administrator.is_administrator, administrator.sees()), (true, None));
        assert_eq!((other.is_administrator, other.sees()), (false, Some(other.project)));
    }
}
