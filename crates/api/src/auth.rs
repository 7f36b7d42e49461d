//! The callers, and what each may do.
//!
//! Every call but the health probes and the pages carries `Authorization: Bearer emt_…`. The store keeps a SHA-256 of
//! each secret. A token is found by that hash: what timing could tell of a lookup is about the hash of 256 random
//! bits, which leads nobody to a secret. Tokens that were found stay in memory (`cache`), so that a call need not ask
//! the store; what is open by a token ends with it (`binding`).

mod allowed;
mod binding;
mod cache;
mod grant;
mod reach;
mod scope;
mod secret;
mod session;

use std::marker::PhantomData;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use emergent_budget::Account;
use emergent_store::{McpAllowList, ProjectId, Scope, TokenId};

pub(crate) use allowed::Allowed;
pub(crate) use binding::bind;
pub use cache::Tokens;
pub use grant::{Grant, GrantEnd};
pub use scope::{NeedsMcp, NeedsRead, NeedsWrite, Requirement, ScopeName};
pub use secret::TokenSecret;
pub(crate) use session::document as document_sessions;

use self::binding::Binding;
use crate::{
    facts::CallFacts,
    http::{
        problem::{ProblemKind, Refusal},
        rates::Counted,
    },
    state::ApiState,
};

/// A caller with a valid token that has the scope `R`. The first argument of every handler that needs one, so that
/// nothing of a request is looked at before its token is.
pub struct Caller<R> {
    token: Grant,
    facts: CallFacts,
    binding: Binding,
    requirement: PhantomData<fn() -> R>,
}

impl<R> Caller<R> {
    /// The project whose rows the caller sees.
    pub fn project(&self) -> ProjectId {
        self.token.project
    }

    /// The caller's rights.
    pub fn scopes(&self) -> &[Scope] {
        &self.token.scopes
    }

    /// The hosted MCP servers that the caller may use; `None` for all of the project's.
    pub fn mcp(&self) -> Option<&McpAllowList> {
        self.token.mcp.as_ref()
    }

    /// Names the token; not a secret.
    pub fn token_id(&self) -> TokenId {
        self.token.id
    }

    /// The call is answered even if it ends the caller's own token.
    pub(crate) fn outlives_token(&self) {
        self.binding.release();
    }

    /// Whether the caller is an administrator of the server: a holder of a token of its default project.
    pub(crate) fn is_administrator(&self, state: &ApiState) -> bool {
        self.project() == state.tokens().store().default_project()
    }

    /// The project whose tokens and figures the caller sees; `None` for an administrator, who sees those of all.
    pub(crate) fn sees(&self, state: &ApiState) -> Option<ProjectId> {
        (!self.is_administrator(state)).then_some(self.project())
    }

    /// Refuses a caller who is no administrator of the server.
    ///
    /// # Errors
    /// A problem that says who may.
    pub(crate) fn require_administrator(&self, state: &ApiState) -> Result<(), Refusal> {
        if self.is_administrator(state) {
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
        // Who may change everything may use what is there.
        let implied = scope == Scope::McpUse && self.token.scopes.contains(&Scope::AdminWrite);
        if implied || self.token.scopes.contains(&scope) {
            return Ok(());
        }
        let detail = format!(
            "this call needs the scope {scope}, which the token {:?} lacks; use a token that has it, or make one with \
             `emergent token create`",
            self.token.name
        );
        Err(Refusal::new(ProblemKind::MissingScope, detail))
    }
}

impl<R: Requirement> FromRequestParts<ApiState> for Caller<R> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Refusal> {
        let token = token_of(&parts.headers, state).await?;
        if let Some(account) = Account::current() {
            account.begin_call(token.project.as_uuid().as_u128())?;
        }
        // Before the audit knows whose call it is: what is refused for its number leaves no row.
        if parts.extensions.get::<Counted>().is_none() {
            state.rates().admit(token.project)?;
        }
        let facts = parts.extensions.get::<CallFacts>().cloned().unwrap_or_default();
        facts.caller(&token);
        let binding = parts.extensions.get::<Binding>().cloned().unwrap_or_default();
        binding.to(token.clone());
        let caller = Self { token, facts, binding, requirement: PhantomData };
        caller.require(R::SCOPE)?;
        reach::check(parts, state, caller.project()).await?;
        if let Some(call) = session::begin(parts, state, caller.project()).await? {
            caller.facts.keep(call);
        }
        Ok(caller)
    }
}

/// The valid token that a request carries.
pub(crate) async fn token_of(headers: &HeaderMap, state: &ApiState) -> Result<Grant, Refusal> {
    let token = state.tokens().find(&bearer(headers)?).await?;
    token.ok_or_else(|| unauthorized("the token is not known, has expired or was revoked"))
}

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

fn unauthorized(what: &str) -> Refusal {
    let detail = format!(
        "{what}; send `Authorization: Bearer emt_…` with a token of this server (the first one stands in \
         bootstrap-token in its data directory)"
    );
    Refusal::new(ProblemKind::Unauthorized, detail)
}
