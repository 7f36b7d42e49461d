//! The callers, and what each may do.
//!
//! Every call but the health probes and the pages carries a token (`credentials`). [`emergent_auth`] finds the principal
//! whose token this is. The metadata of the route says which scope the call needs, and the principal's grants bound what
//! it may reach (`grants`). What is open by a token ends with it (`binding`).

mod binding;
mod credentials;
mod grants;
mod mcp_allowed;
mod reach;
mod scope;
mod session;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use emergent_auth::{LivePrincipal, Principal};
use emergent_budget::Account;
use emergent_store::{McpAllowList, ProjectId, Scope, TokenId};

pub(crate) use binding::bind;
pub(crate) use credentials::accept;
pub(crate) use mcp_allowed::Allowed;
pub use scope::{ScopeName, ToolName};

use self::binding::Binding;
use crate::{
    facts::CallFacts,
    http::{
        problem::{ProblemKind, Refusal},
        rates::Counted,
        route::{Access, RouteMetadata},
    },
    state::ApiState,
};

/// A principal that makes a call, and has the scope that the call's route asks for. The first argument of every handler
/// that needs one, so that nothing of a request is looked at before its principal is known.
pub struct Caller {
    principal: LivePrincipal,
    facts: CallFacts,
    binding: Binding,
}

impl Caller {
    /// The project whose rows the caller sees.
    pub fn project(&self) -> ProjectId {
        self.principal.project
    }

    /// The hosted MCP servers that the caller may use; `None` for all of the project's.
    pub fn mcp(&self) -> Option<&McpAllowList> {
        self.principal.grants.mcp.as_ref()
    }

    /// Names the token; not a secret.
    pub fn token_id(&self) -> TokenId {
        self.principal.token
    }

    /// The call is answered even if it ends the caller's own token.
    pub(crate) fn outlives_token(&self) {
        self.binding.release();
    }

    /// The principal who makes the call.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Refuses a caller who is no administrator of the server.
    ///
    /// # Errors
    /// A problem that says who may.
    pub(crate) fn require_administrator(&self) -> Result<(), Refusal> {
        if self.principal.grants.is_administrator {
            return Ok(());
        }
        let detail = "only a token of an administrator may do this; `emergent token ls` shows which tokens are";
        Err(Refusal::new(ProblemKind::ProjectNotAllowed, detail))
    }

    /// The facts of this call, for the audit.
    pub(crate) fn facts(&self) -> &CallFacts {
        &self.facts
    }

    /// Refuses a caller without this scope.
    ///
    /// # Errors
    /// A problem that names the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        if self.principal.grants.has(scope) {
            return Ok(());
        }
        let detail = format!(
            "this call needs the scope {scope}, which the token {:?} lacks; use a token that has it, or make one with \
             `emergent token create`",
            self.principal.name
        );
        Err(Refusal::new(ProblemKind::MissingScope, detail))
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Refusal> {
        let route = RouteMetadata::of(parts)?;
        let Access::Needs(scope) = route.access else {
            return Err(Refusal::new(ProblemKind::Internal, "the handler asks for a caller on a public route"));
        };
        let principal = principal_of(&parts.headers, state).await?;
        if let Some(account) = Account::current() {
            account.begin_call(principal.project.as_uuid().as_u128())?;
        }
        // Before the audit knows whose call it is: what is refused for its number leaves no row.
        if parts.extensions.get::<Counted>().is_none() {
            state.rates().admit(principal.project)?;
        }
        let facts = parts.extensions.get::<CallFacts>().cloned().unwrap_or_default();
        facts.caller(&principal);
        let binding = parts.extensions.get::<Binding>().cloned().unwrap_or_default();
        binding.to(principal.clone());
        let caller = Self { principal, facts, binding };
        caller.require(scope)?;
        grants::check(parts, &route, &caller.principal).await?;
        reach::check(parts, state, &route, caller.project()).await?;
        if let Some(call) = session::begin(parts, state, &route, caller.project()).await? {
            caller.facts.keep(call);
        }
        Ok(caller)
    }
}

/// Returns the principal who makes a request.
pub(crate) async fn principal_of(headers: &HeaderMap, state: &ApiState) -> Result<LivePrincipal, Refusal> {
    let principal = state.tokens().find(&credentials::secret(headers)?).await?;
    principal.ok_or_else(|| credentials::unauthorized("the token is not known, has expired or was revoked"))
}
