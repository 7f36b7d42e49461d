//! What was done: in one workspace, or in all of the project's, destroyed ones too.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use emergent_core::{Actor, AuditFilter, AuditKind, AuditOutcome, AuditRow, Cursor, PageRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{Caller, NeedsRead},
    check::{Check, Faults},
    extract::{Query, WorkspacePath},
    params::WorkspaceParam,
    problem::{OnWorkspace, ProblemKind, Refusal, Usual},
    resources::workspaces::view::words,
    span::Span,
    state::ApiState,
};

words! {
    /// What kind of thing was done.
    AuditKindName("a kind.") = AuditKind {
        /// A call that reaches into a workspace.
        Tool = "tool",
        /// A step of a workspace's life.
        Lifecycle = "lifecycle",
    }
}

words! {
    /// How something ended.
    AuditOutcomeName("an outcome.") = AuditOutcome {
        /// It was done.
        Ok = "ok",
        /// It was not done, for a reason that lies in the request or in the workspace.
        Refused = "refused",
        /// It went wrong.
        Failed = "failed",
        /// Its time was up.
        TimedOut = "timed_out",
        /// The caller went away before the end; what was begun may have gone on.
        Abandoned = "abandoned",
    }
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditView {
    /// Names it; later ones are greater.
    pub id: Uuid,
    /// In or with which workspace; null where none was made.
    pub workspace_id: Option<Uuid>,
    /// When it began.
    pub at: DateTime<Utc>,
    /// Who did it: the id of a token, or `server` for what the server does by itself.
    pub actor: String,
    /// The session that the caller named in `Emergent-Session`.
    pub session: Option<String>,
    /// A call or a step of a workspace's life.
    pub kind: AuditKindName,
    /// What: the operation of a call, such as `bash` or `download_file`; or the step, such as `create`, `ready`,
    /// `stop`, `oom` or `destroy`.
    pub action: String,
    /// How it ended.
    pub outcome: AuditOutcomeName,
    /// The problem that it ended with: the last part of the problem's address, or the reason of a failure.
    pub problem: Option<String>,
    /// How long it took, a streamed answer included.
    pub duration_ms: u64,
    /// What it was asked, in few words; never contents, output or values of an environment.
    pub arguments: Map<String, Value>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The `x-request-id` of the request that asked for it.
    pub request_id: Option<String>,
}

/// A page of what was done, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// What was done.
    pub items: Vec<AuditView>,
    /// Send it as `cursor` to get the next page; null when there is none.
    pub next_cursor: Option<String>,
}

/// Which of what was done.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// How many at most; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Of this kind.
    #[param(inline)]
    kind: Option<AuditKindName>,
    /// Of this action, such as `bash`.
    #[param(pattern = "^[a-z_]{1,64}$")]
    action: Option<String>,
    /// With this outcome.
    #[param(inline)]
    outcome: Option<AuditOutcomeName>,
    /// Under this session.
    session: Option<Uuid>,
    /// Begun at this time or later.
    since: Option<DateTime<Utc>>,
    /// Begun before this time.
    until: Option<DateTime<Utc>>,
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_workspace_audit)).routes(routes!(list_audit))
}

/// Lists what was done in and with a workspace, newest first.
///
/// Rows are written a moment after the fact: what was done in the last second may be missing. Reading what was done
/// leaves no row.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/audit",
    tag = "audit",
    security(("token" = ["admin:read"])),
    params(WorkspaceParam, AuditQuery),
    responses((status = 200, description = "A page of what was done.", body = AuditList), OnWorkspace)
)]
async fn list_workspace_audit(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditList>, Refusal> {
    let (filter, page) = query.into_core()?;
    let workspaces = state.workspaces();
    let filter = AuditFilter { workspace: Some(id), ..filter };
    let page = workspaces.audit_list(caller.project(), filter, page).await?;
    if page.items.is_empty() {
        // Nothing was done with what is not there. What was done outlives the workspace's own row.
        workspaces.get(caller.project(), id).await?;
    }
    Ok(Json(page.into()))
}

/// Lists what was done in and with all workspaces of the project, newest first.
///
/// Also what has no workspace: creates that were refused, and how many rows were lost, if any were.
#[utoipa::path(
    get,
    path = "/api/v1/agent/audit",
    tag = "audit",
    security(("token" = ["admin:read"])),
    params(AuditQuery),
    responses((status = 200, description = "A page of what was done.", body = AuditList), Usual)
)]
async fn list_audit(
    caller: Caller<NeedsRead>,
    State(state): State<ApiState>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditList>, Refusal> {
    let (filter, page) = query.into_core()?;
    Ok(Json(state.workspaces().audit_list(caller.project(), filter, page).await?.into()))
}

// === impl AuditQuery ===

impl Check for AuditQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("limit", self.limit, 1..=PageRequest::MOST);
        let is_action = |text: &str| {
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        };
        if self.action.as_deref().is_some_and(|text| !is_action(text)) {
            faults.add("action", "an action is a word such as bash or destroy");
        }
    }
}

impl AuditQuery {
    fn into_core(self) -> Result<(AuditFilter, PageRequest), Refusal> {
        let invalid = |error: emergent_core::InvalidCursor| {
            Refusal::of_field(ProblemKind::InvalidValue, "cursor", error.to_string())
        };
        let cursor = self.cursor.map(|text| text.parse::<Cursor>().map_err(invalid)).transpose()?;
        let span = Span::of(self.since, self.until);
        let filter = AuditFilter {
            workspace: None,
            kind: self.kind.map(Into::into),
            action: self.action,
            outcome: self.outcome.map(Into::into),
            session: self.session.map(|id| id.to_string()),
            since: span.since,
            until: span.until,
        };
        Ok((filter, PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT), cursor }))
    }
}

impl From<emergent_core::Page<AuditRow>> for AuditList {
    fn from(page: emergent_core::Page<AuditRow>) -> Self {
        let page = page.map(AuditView::from);
        Self { items: page.items, next_cursor: page.next.map(|cursor| cursor.to_string()) }
    }
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id.as_uuid(),
            workspace_id: row.workspace.map(emergent_core::WorkspaceId::as_uuid),
            at: row.at,
            actor: match row.actor {
                Actor::Server => "server".to_owned(),
                Actor::Token(token) => token.to_string(),
            },
            session: row.session,
            kind: row.kind.into(),
            action: row.action,
            outcome: row.outcome.into(),
            problem: row.problem,
            duration_ms: row.duration_ms,
            arguments: row.arguments,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            request_id: row.request_id,
        }
    }
}
