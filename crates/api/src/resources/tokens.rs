//! Access tokens: made, listed, rotated, revoked. Every token belongs to the project of the token that made it, unless
//! an administrator names another one. Administrators see and end the tokens of all projects, others those of their own.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use emergent_auth::{Principal, TokenSecret};
use emergent_core::{LookupError, TokenId};
use emergent_store::{
    Cursor, DEFAULT_PROJECT, Grants, InvalidCursor, McpAllowList, NewToken, NewTokenError, Page, PageRequest,
    ProjectId, Scope, Store, Token, TokenFilter,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    auth::{Caller, ScopeName, ToolName},
    http::{
        check::{Check, Faults},
        extract::{JsonBody, Query, path_parameter},
        problem::{ProblemKind, Refusal, Usual},
        route::{READ, Routes, WRITE, of_project},
    },
    state::ApiState,
};

const MOST_MCP_SERVERS: usize = 256;
const MOST_MCP_SERVERS_BYTES: usize = 16 << 10;
const MOST_LIFETIME_SECONDS: u64 = 3650 * 24 * 60 * 60;

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For people: what it is for.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// The rights of the token; no more than those of the token that makes it.
    #[schema(min_items = 1)]
    pub scopes: Vec<ScopeName>,
    /// The hosted MCP servers that it may use, each as `server`, or as `server__tool` for one of its tools alone; all
    /// of the project's when left out. Only for a token without `admin:write`, which may use everything. 16 KiB at most
    /// in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 256, example = json!(["clock", "files__read_text_file"]))]
    pub mcp_servers: Option<Vec<String>>,
    /// Seconds until it stops working; never when left out.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub expires_in_seconds: Option<u64>,
    /// The only workspace that it may use; all of the project's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Uuid>,
    /// The tools that it may use in workspaces; all when left out. A token with this list may change workspaces in no
    /// other way than by these tools. `bash` stands for commands and processes, `read` and `write` also for whole files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 7, example = json!(["read", "grep", "glob"]))]
    pub tools: Option<Vec<ToolName>>,
    /// Whether its holder is an operator, whose calls need not name a session while a session holds the workspace; as
    /// the token that makes it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<bool>,
    /// Whether its holder administers the installation: sees all projects, sets quotas, drains servers. When left out,
    /// true for a token of the project `default` that an administrator makes without `workspace_id` and `tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<bool>,
    /// The project whose rows it opens, made if it is missing; your own when left out. Only an administrator may name
    /// another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9._-]+$")]
    pub project: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    /// Names it; not a secret.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// The project whose rows it opens.
    pub project: String,
    /// The rights of the token.
    pub scopes: Vec<ScopeName>,
    /// The hosted MCP servers that it may use, each as `server` or `server__tool`; null for all of the project's.
    pub mcp_servers: Option<Vec<String>>,
    /// The only workspace that it may use; null for all of the project's.
    pub workspace_id: Option<Uuid>,
    /// The tools that it may use in workspaces; null for all.
    pub tools: Option<Vec<ToolName>>,
    /// Whether its holder is an operator, whose calls need not name a session.
    #[serde(default)]
    pub operator: bool,
    /// Whether its holder administers the installation.
    #[serde(default)]
    pub administrator: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its secret was last replaced.
    pub rotated_at: Option<DateTime<Utc>>,
    /// When it stops working; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked; it no longer works since.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A token with its secret, which is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWithSecret {
    /// The token.
    pub token: TokenView,
    /// The secret to send as `Authorization: Bearer …`. It cannot be shown again.
    #[schema(pattern = "^emt_[A-Za-z0-9_-]{43}$")]
    pub secret: String,
}

/// The tokens to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TokenQuery {
    /// How many at most; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Those of the project of this name alone.
    project: Option<String>,
    /// Those of this name alone.
    name: Option<String>,
}

/// A page of the tokens that the caller sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The tokens, newest first, revoked ones too.
    pub items: Vec<TokenView>,
    /// Send it as `cursor` to get the next page; null when there is none.
    pub next_cursor: Option<String>,
}

/// The token that the path names.
struct TokenPath(TokenId);

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used")]
struct TokenParam {
    /// The token's id.
    id: Uuid,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(create_token), of_project(WRITE))
        .operation(routes!(list_tokens), of_project(READ))
        .operation(routes!(revoke_token), of_project(WRITE))
        .operation(routes!(rotate_token), of_project(WRITE))
}

/// Makes a token. The secret is in the answer and nowhere else.
///
/// The token belongs to your own project, unless you are an administrator and the request names another. A project has
/// at most 1,000 tokens that work. Of those that were revoked or have expired, the newest 1,000 are listed.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body = CreateToken,
    responses(
        (status = 201, description = "The token, with its secret.", body = TokenWithSecret),
        (status = 404, description = "The project has no such workspace.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn create_token(
    caller: Caller,
    State(state): State<ApiState>,
    JsonBody(request): JsonBody<CreateToken>,
) -> Result<Response, Refusal> {
    let store = state.store();
    let of_default_project = match &request.project {
        Some(name) => name == DEFAULT_PROJECT,
        None => caller.project() == store.default_project(),
    };
    let grants = request.grants(caller.principal(), of_default_project)?;
    require_all(&caller, &grants)?;
    let (project, project_name) = project(store, caller.principal(), request.project).await?;
    if let Some(id) = request.workspace_id
        && store.workspaces_get(project, id.into()).await?.is_none()
    {
        return Err(LookupError::NotFound.into());
    }
    let secret = TokenSecret::generate();
    let lifetime = request.expires_in_seconds.and_then(|seconds| i64::try_from(seconds).ok()).map(TimeDelta::seconds);
    let new = NewToken {
        project,
        name: request.name,
        grants,
        hash: secret.hash(),
        expires_at: lifetime.map(|lifetime| Utc::now() + lifetime),
    };
    let token = store.tokens_create(new).await?;
    Ok((StatusCode::CREATED, no_store(), Json(with_secret(token, project_name, &secret))).into_response())
}

/// Lists the tokens that you see, without their secrets: your own project's, or those of all projects if you are an
/// administrator.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    params(TokenQuery),
    responses((status = 200, description = "A page of the tokens.", body = TokenList), Usual)
)]
async fn list_tokens(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<TokenQuery>,
) -> Result<Json<TokenList>, Refusal> {
    let store = state.store();
    let (filter, page) = query.into_store(caller.principal().sees())?;
    let names: HashMap<_, _> =
        store.projects_list().await?.into_iter().map(|project| (project.id, project.name)).collect();
    let Page { items, next } = store.tokens_list(&filter, page).await?.map(|token| {
        let project = names.get(&token.project).cloned().unwrap_or_default();
        TokenView::new(token, project)
    });
    Ok(Json(TokenList { items, next_cursor: next.map(|cursor| cursor.to_string()) }))
}

/// Revokes a token: it stops working at once, and what is open by it ends. Revoking a revoked one changes nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(TokenParam),
    responses(
        (status = 204, description = "It no longer works."),
        (status = 404, description = "You see no such token.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn revoke_token(
    caller: Caller,
    State(state): State<ApiState>,
    TokenPath(id): TokenPath,
) -> Result<StatusCode, Refusal> {
    let token = seen(&caller, &state, id).await?;
    if token.grants.is_administrator {
        caller.require_administrator()?;
    }
    caller.outlives_token();
    state.tokens().revoke(token.project, id).await?.ok_or_else(no_such_token)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a token a new secret. The old one stops working at once, and what is open by it ends.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/{id}/rotate",
    tag = "tokens",
    params(TokenParam),
    responses(
        (status = 200, description = "The token, with its new secret.", body = TokenWithSecret),
        (status = 404, description = "You see no such token, or it is revoked.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        Usual,
    )
)]
async fn rotate_token(
    caller: Caller,
    State(state): State<ApiState>,
    TokenPath(id): TokenPath,
) -> Result<Response, Refusal> {
    let token = seen(&caller, &state, id).await?;
    // A new secret of a token that may do more than the caller would be more than the caller may have.
    require_all(&caller, &token.grants)?;
    let project = state.store().projects_name(token.project).await?;
    caller.outlives_token();
    let (token, secret) = state.tokens().rotate(token.project, id).await?.ok_or_else(no_such_token)?;
    Ok((no_store(), Json(with_secret(token, project, &secret))).into_response())
}

/// Refuses a caller who lacks any of these grants: nobody gives more than they have. A caller who has tools alone, or one
/// workspace alone, makes no tokens at all.
fn require_all(caller: &Caller, grants: &Grants) -> Result<(), Refusal> {
    grants.scopes.iter().try_for_each(|scope| caller.require(*scope))?;
    if grants.is_administrator {
        caller.require_administrator()?;
    }
    if grants.is_operator && !caller.principal().grants.is_operator {
        let detail = "your token is not an operator's, and makes none of an operator; leave `operator` out";
        return Err(Refusal::new(ProblemKind::NotGranted, detail));
    }
    Ok(())
}

/// A token of the caller's project; an administrator sees those of all.
async fn seen(caller: &Caller, state: &ApiState, id: TokenId) -> Result<Token, Refusal> {
    let token = state.store().tokens_get(id).await?;
    let is_seen = |token: &Token| token.project == caller.project() || caller.principal().grants.is_administrator;
    token.filter(is_seen).ok_or_else(no_such_token)
}

/// The project that a new token is to open, with its name.
async fn project(store: &Store, caller: &Principal, named: Option<String>) -> Result<(ProjectId, String), Refusal> {
    let own = caller.project;
    let own_name = store.projects_name(own).await?;
    match named {
        None => Ok((own, own_name)),
        Some(name) if name == own_name => Ok((own, name)),
        Some(name) if caller.grants.is_administrator => Ok((store.projects_ensure(&name).await?, name)),
        Some(_) => Err(Refusal::new(
            ProblemKind::ProjectNotAllowed,
            format!(
                "your token is of the project {own_name}, and only an administrator's token may name another; leave \
                 `project` out to make a token of your own project"
            ),
        )),
    }
}

impl From<NewTokenError> for Refusal {
    fn from(error: NewTokenError) -> Self {
        match error {
            NewTokenError::TooMany => Self::new(ProblemKind::LimitReached, error.to_string()),
            NewTokenError::Store(error) => error.into(),
        }
    }
}

fn allow_list(entries: Vec<String>) -> Result<McpAllowList, Refusal> {
    let list = McpAllowList::try_from(entries);
    list.map_err(|error| Refusal::of_field(ProblemKind::InvalidValue, "mcp_servers", error.to_string()))
}

fn no_such_token() -> Refusal {
    Refusal::new(
        ProblemKind::TokenNotFound,
        "you see no such token, or it is revoked; list those of your project with GET /api/v1/tokens, which shows those of \
         all projects to an administrator",
    )
}

fn no_store() -> [(header::HeaderName, &'static str); 1] {
    [(header::CACHE_CONTROL, "no-store")]
}

fn with_secret(token: Token, project: String, secret: &TokenSecret) -> TokenWithSecret {
    TokenWithSecret { token: TokenView::new(token, project), secret: secret.expose().to_owned() }
}

/// Whether a project can be called so.
pub(crate) fn is_project_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

// === impl CreateToken ===

impl CreateToken {
    /// Returns the grants of the token that the principal asks for.
    fn grants(&self, maker: &Principal, of_default_project: bool) -> Result<Grants, Refusal> {
        let mut scopes: Vec<Scope> = self.scopes.iter().copied().map(Into::into).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let is_bound = self.workspace_id.is_some() || self.tools.is_some();
        let administers = of_default_project && maker.grants.is_administrator && !is_bound;
        Ok(Grants {
            scopes,
            is_administrator: self.administrator.unwrap_or(administers),
            is_operator: self.operator.unwrap_or(maker.grants.is_operator),
            workspace: self.workspace_id.map(Into::into),
            tools: self.tools.as_ref().map(|tools| tools.iter().copied().map(Into::into).collect()),
            mcp: self.mcp_servers.clone().map(allow_list).transpose()?,
        })
    }
}

impl Check for CreateToken {
    fn check(&self, faults: &mut Faults) {
        if self.name.is_empty() || self.name.chars().count() > 200 {
            faults.add("name", "it takes 1 to 200 characters");
        }
        if self.scopes.is_empty() {
            faults.add("scopes", "name at least one of admin:read and admin:write");
        }
        if let Some(servers) = &self.mcp_servers {
            if servers.len() > MOST_MCP_SERVERS {
                faults.add("mcp_servers", "it takes at most 256 names");
            }
            if servers.iter().map(String::len).sum::<usize>() > MOST_MCP_SERVERS_BYTES {
                faults
                    .add("mcp_servers", "its names take more than 16 KiB in all; name servers in place of their tools");
            }
            if self.scopes.contains(&ScopeName::AdminWrite) {
                faults
                    .add("mcp_servers", "a token of the scope admin:write may use all servers; leave one of them out");
            }
        }
        if self.administrator == Some(true) && (self.workspace_id.is_some() || self.tools.is_some()) {
            faults.add(
                "administrator",
                "a token for one workspace, or for some tools, administers nothing; leave it out",
            );
        }
        faults.range("expires_in_seconds", self.expires_in_seconds, 1..=MOST_LIFETIME_SECONDS);
        if self.project.as_deref().is_some_and(|name| !is_project_name(name)) {
            faults.add("project", "it takes 1 to 100 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`");
        }
    }
}

impl Check for TokenQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("limit", self.limit, 1..=PageRequest::MOST);
    }
}

impl TokenQuery {
    /// The same of what the caller sees: one project, or all.
    fn into_store(self, sees: Option<ProjectId>) -> Result<(TokenFilter, PageRequest), Refusal> {
        let invalid = |error: InvalidCursor| Refusal::of_field(ProblemKind::InvalidValue, "cursor", error.to_string());
        let cursor = self.cursor.map(|text| text.parse::<Cursor>().map_err(invalid)).transpose()?;
        let filter = TokenFilter { project: sees, project_name: self.project, name: self.name };
        Ok((filter, PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT), cursor }))
    }
}

// === impl TokenView ===

impl TokenView {
    fn new(token: Token, project: String) -> Self {
        let grants = token.grants;
        Self {
            id: token.id.as_uuid(),
            name: token.name,
            project,
            scopes: grants.scopes.into_iter().map(Into::into).collect(),
            mcp_servers: grants.mcp.map(Into::into),
            workspace_id: grants.workspace.map(|id| id.as_uuid()),
            tools: grants.tools.map(|tools| tools.into_iter().map(Into::into).collect()),
            operator: grants.is_operator,
            administrator: grants.is_administrator,
            created_at: token.created_at,
            rotated_at: token.rotated_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
        }
    }
}

// === impl TokenPath ===

impl<S: Send + Sync> FromRequestParts<S> for TokenPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| no_such_token())
    }
}
