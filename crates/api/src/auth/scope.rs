//! Scopes: as types on handlers, and as words in JSON.

use emergent_store::Scope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a handler needs of its caller.
pub trait Requirement {
    /// The scope.
    const SCOPE: Scope;
}

/// The handler shows something.
pub struct NeedsRead;

/// The handler changes something.
pub struct NeedsWrite;

impl Requirement for NeedsRead {
    const SCOPE: Scope = Scope::AdminRead;
}

impl Requirement for NeedsWrite {
    const SCOPE: Scope = Scope::AdminWrite;
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = Scope)]
pub enum ScopeName {
    /// See everything of the project.
    #[serde(rename = "admin:read")]
    AdminRead,
    /// Change everything of the project.
    #[serde(rename = "admin:write")]
    AdminWrite,
}

impl From<Scope> for ScopeName {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::AdminRead => Self::AdminRead,
            Scope::AdminWrite => Self::AdminWrite,
        }
    }
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::AdminRead => Self::AdminRead,
            ScopeName::AdminWrite => Self::AdminWrite,
        }
    }
}
