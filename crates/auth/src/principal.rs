//! The principal of a request, and the principal's grants.

use emergent_store::{Grants, ProjectId, Token, TokenId};

/// The one who makes a request, with all rights that the request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token that proved the principal; its id is not a secret.
    pub token: TokenId,
    /// The token's name, for people.
    pub name: String,
    /// The project whose rows the principal sees.
    pub project: ProjectId,
    /// The principal's permissions, and the resources to which they are bound.
    pub grants: Grants,
}

// === impl Principal ===

impl Principal {
    /// Returns the holder of a token.
    #[must_use]
    pub fn holder_of(token: Token) -> Self {
        let Token { id, name, project, grants, .. } = token;
        Self { token: id, name, project, grants }
    }

    /// Returns the project whose tokens and figures the principal sees; `None` for an administrator, who sees those of
    /// all projects.
    #[must_use]
    pub fn sees(&self) -> Option<ProjectId> {
        (!self.grants.is_administrator).then_some(self.project)
    }
}
