//! The audit: the calls and steps of one workspace, or of all workspaces of the project, destroyed ones too.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use emergent_core::{Actor, AuditFilter, AuditKind, AuditOutcome, AuditRow, Cursor, PageRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{Query, WorkspacePath},
        problem::{OnWorkspace, ProblemKind, Refusal, Usual},
        route::{READ, Routes, of_project, of_workspace},
        span::Span,
    },
    resources::{params::WorkspaceParam, workspaces::view::words},
    state::ApiState,
};

words! {
    /// The kind of an audit entry.
    AuditKindName("a kind.") = AuditKind {
        /// A call that reaches into a workspace.
        Tool = "tool",
        /// A step of a workspace's life.
        Lifecycle = "lifecycle",
    }
}

words! {
    /// The outcome of a call or step.
    AuditOutcomeName("an outcome.") = AuditOutcome {
        /// The call or step succeeded.
        Ok = "ok",
        /// The call or step was refused, for a reason in the request or in the workspace.
        Refused = "refused",
        /// The call or step failed.
        Failed = "failed",
        /// The call or step ran out of time.
        TimedOut = "timed_out",
        /// The caller went away before the end; the work may have gone on.
        Abandoned = "abandoned",
    }
}

/// A call or a step of a workspace's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditView {
    /// The entry's id; later entries have greater ids.
    pub id: Uuid,
    /// The workspace; null where none was made.
    pub workspace_id: Option<Uuid>,
    /// The time at which the call or step began.
    pub at: DateTime<Utc>,
    /// The actor: the id of a token, or `server` for steps that the server takes by itself.
    pub actor: String,
    /// The session that the caller named in `Emergent-Session`.
    pub session: Option<String>,
    /// The kind of the entry: a call, or a step of a workspace's life.
    pub kind: AuditKindName,
    /// The action: the operation of a call, such as `bash` or `download_file`; or the step, such as `create`, `ready`,
    /// `stop`, `oom` or `destroy`.
    pub action: String,
    /// The outcome of the call or step.
    pub outcome: AuditOutcomeName,
    /// The problem that ended the call or step: the last part of the problem's address, or the reason of a failure.
    pub problem: Option<String>,
    /// The duration in milliseconds, a streamed answer included.
    pub duration_ms: u64,
    /// The call's arguments, shortened; never contents, output or values of an environment.
    pub arguments: Map<String, Value>,
    /// The bytes of the request's body.
    pub bytes_in: u64,
    /// The bytes of the answer's body.
    pub bytes_out: u64,
    /// The `x-request-id` of the request that led to the entry.
    pub request_id: Option<String>,
}

/// A page of the audit, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The entries.
    pub items: Vec<AuditView>,
    /// Send it as `cursor` to get the next page; null when there is none.
    pub next_cursor: Option<String>,
}

/// Filters for audit entries.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// The greatest number of entries; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Only entries of this kind.
    #[param(inline)]
    kind: Option<AuditKindName>,
    /// Only entries of this action, such as `bash`.
    #[param(pattern = "^[a-z_]{1,64}$")]
    action: Option<String>,
    /// Only entries with this outcome.
    #[param(inline)]
    outcome: Option<AuditOutcomeName>,
    /// Only entries of this session.
    session: Option<Uuid>,
    /// Only entries that began at this time or later.
    since: Option<DateTime<Utc>>,
    /// Only entries that began before this time.
    until: Option<DateTime<Utc>>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(list_workspace_audit), of_workspace(READ))
        .operation(routes!(list_audit), of_project(READ))
}

/// Lists the calls and steps of a workspace, newest first.
///
/// Entries are written a moment after the fact: those of the last second may be missing. Reading the audit leaves no
/// entry.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/audit",
    tag = "audit",
    params(WorkspaceParam, AuditQuery),
    responses((status = 200, description = "A page of what was done.", body = AuditList), OnWorkspace)
)]
async fn list_workspace_audit(
    caller: Caller,
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

/// Lists the calls and steps of all workspaces of the project, newest first.
///
/// The list includes entries without a workspace: creates that were refused, and the number of lost entries, if any
/// were lost.
#[utoipa::path(
    get,
    path = "/api/v1/agent/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "A page of what was done.", body = AuditList), Usual)
)]
async fn list_audit(
    caller: Caller,
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
