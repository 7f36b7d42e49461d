//! The callers, and what each may do.
//!
//! Every call but the health probes and the pages carries `Authorization: Bearer emt_…`. [`emergent_auth`] finds the
//! principal whose token this is; what is open by a token ends with it (`binding`).

mod binding;
mod mcp_allowed;
mod reach;
mod scope;
mod session;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use emergent_auth::{Grant, Principal, TokenSecret};
use emergent_budget::Account;
use emergent_store::{McpAllowList, ProjectId, Scope, TokenId};

pub(crate) use binding::bind;
pub(crate) use mcp_allowed::Allowed;
pub use scope::ScopeName;

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
    grant: Grant,
    facts: CallFacts,
    binding: Binding,
}

impl Caller {
    /// The project whose rows the caller sees.
    pub fn project(&self) -> ProjectId {
        self.grant.project
    }

    /// The caller's rights.
    pub fn scopes(&self) -> &[Scope] {
        &self.grant.scopes
    }

    /// The hosted MCP servers that the caller may use; `None` for all of the project's.
    pub fn mcp(&self) -> Option<&McpAllowList> {
        self.grant.mcp.as_ref()
    }

    /// Names the token; not a secret.
    pub fn token_id(&self) -> TokenId {
        self.grant.token
    }

    /// The call is answered even if it ends the caller's own token.
    pub(crate) fn outlives_token(&self) {
        self.binding.release();
    }

    /// The principal who makes the call.
    pub(crate) fn principal(&self) -> &Principal {
        &self.grant
    }

    /// Refuses a caller who is no administrator of the server.
    ///
    /// # Errors
    /// A problem that says who may.
    pub(crate) fn require_administrator(&self) -> Result<(), Refusal> {
        if self.grant.is_administrator {
            return Ok(());
        }
        let detail = "only a token of the default project, whose holders are the server's administrators, may do this";
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
        if self.grant.has(scope) {
            return Ok(());
        }
        let detail = format!(
            "this call needs the scope {scope}, which the token {:?} lacks; use a token that has it, or make one with \
             `emergent token create`",
            self.grant.name
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
        let grant = grant_of(&parts.headers, state).await?;
        if let Some(account) = Account::current() {
            account.begin_call(grant.project.as_uuid().as_u128())?;
        }
        // Before the audit knows whose call it is: what is refused for its number leaves no row.
        if parts.extensions.get::<Counted>().is_none() {
            state.rates().admit(grant.project)?;
        }
        let facts = parts.extensions.get::<CallFacts>().cloned().unwrap_or_default();
        facts.caller(&grant);
        let binding = parts.extensions.get::<Binding>().cloned().unwrap_or_default();
        binding.to(grant.clone());
        let caller = Self { grant, facts, binding };
        caller.require(scope)?;
        reach::check(parts, state, &route, caller.project()).await?;
        if let Some(call) = session::begin(parts, state, &route, caller.project()).await? {
            caller.facts.keep(call);
        }
        Ok(caller)
    }
}

/// Returns the grant of the principal who makes a request.
pub(crate) async fn grant_of(headers: &HeaderMap, state: &ApiState) -> Result<Grant, Refusal> {
    let grant = state.tokens().find(&bearer(headers)?).await?;
    grant.ok_or_else(|| unauthorized("the token is not known, has expired or was revoked"))
}

/// Returns the secret that a request carries.
fn bearer(headers: &HeaderMap) -> Result<TokenSecret, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| unauthorized("there is no Authorization header"))?;
    if values.next().is_some() {
        return Err(unauthorized("there is more than one Authorization header"));
    }
    let (scheme, credentials) = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().split_once(' '))
        .ok_or_else(|| unauthorized("the Authorization header is not `Bearer` and a token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized("the Authorization header is not of the scheme Bearer"));
    }
    TokenSecret::parse(credentials.trim()).map_err(|error| unauthorized(&error.to_string()))
}

fn unauthorized(reason: &str) -> Refusal {
    let detail = format!(
        "{reason}; send `Authorization: Bearer emt_…` with a token of this server (the first one stands in \
         bootstrap-token in its data directory)"
    );
    Refusal::new(ProblemKind::Unauthorized, detail)
}
