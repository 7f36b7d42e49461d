//! Attaching to a workspace, detaching from it, and the list of its sessions.

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use emergent_core::{AttachRequest, Cursor, PageRequest, SessionEnd, SessionId, SessionRow};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::{
    auth::Caller,
    http::{
        check::{Check, Faults},
        extract::{JsonBody, Query, WorkspacePath},
        problem::{OnWorkspace, ProblemKind, Refusal},
        route::{READ, Routes, WRITE, of_workspace},
    },
    resources::params::WorkspaceParam,
    state::ApiState,
};

const MOST_LEASE_SECONDS: u64 = 30 * 24 * 60 * 60;
const MOST_HOLDER: usize = 128;

/// A request to hold a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "holder": "review-agent" }))]
pub struct Attach {
    /// The holder's name, for people and other agents: 1 to 128 characters.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub holder: String,
    /// The session's id, chosen by the caller: repeating the request then finds the same session and begins its lease
    /// anew. Left out: the server makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// The seconds without a call that carries the session after which it ends, so that a holder that died locks nobody
    /// out. Choose more than the longest call. Left out: the session lasts until it is detached or taken over.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
    /// Whether to take the workspace over from its holder.
    #[serde(default)]
    pub take_over: bool,
}

/// The session that is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "session_id": "01970000-0000-7000-8000-000000000000" }))]
pub struct Detach {
    /// The `session_id` that `attach` returned.
    pub session_id: Uuid,
}

/// One attachment of an agent to a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    /// The session's id: send it as `Emergent-Session`.
    pub session_id: Uuid,
    /// The workspace.
    pub workspace_id: Uuid,
    /// The name of the holder.
    pub holder: String,
    /// The time at which the session began.
    pub attached_at: DateTime<Utc>,
    /// The seconds without a call after which the session ends; null for no limit.
    pub expires_in_seconds: Option<u64>,
    /// The time at which the session ends unless a call carries it before; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time at which the session ended; null while it is attached.
    pub ended_at: Option<DateTime<Utc>>,
    /// The reason why the session ended: `detached`, `taken_over`, `expired`, `destroyed` (the workspace was), or
    /// `unusable` (the workspace could not be made ready for it).
    pub end_reason: Option<String>,
}

/// A page of sessions, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The sessions.
    pub items: Vec<SessionView>,
    /// The cursor of the next page: send it as `cursor`; null when there is none.
    pub next_cursor: Option<String>,
}

/// The wanted page of sessions.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SessionsQuery {
    /// The greatest number of sessions; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(attach), of_workspace(WRITE).free_of_sessions().audited_as_change())
        .operation(routes!(detach), of_workspace(WRITE).free_of_sessions().audited_as_change())
        .operation(routes!(list_sessions), of_workspace(READ).free_of_sessions())
}

/// Attaches an agent to a workspace: one at a time.
///
/// The workspace is ready when the call returns; a paused or stopped one is resumed. While another session is attached,
/// the answer is 409, naming its holder.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/attach",
    tag = "workspaces",
    params(WorkspaceParam),
    request_body = Attach,
    responses(
        (status = 200, description = "The session; the workspace is ready.", body = SessionView),
        (status = 429, description = "The limit on workspaces is reached.", body = crate::http::problem::Problem, content_type = "application/problem+json"),
        OnWorkspace,
    )
)]
async fn attach(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<Attach>,
) -> Result<Json<SessionView>, Refusal> {
    Ok(Json(state.workspaces().sessions().attach(caller.project(), id, request.into_core()).await?.into()))
}

/// Ends a session: the workspace is free for the next one, with its files and its running processes.
///
/// Ending a session that has ended changes nothing and returns it as it ended.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/detach",
    tag = "workspaces",
    params(WorkspaceParam),
    request_body = Detach,
    responses((status = 200, description = "The session, ended.", body = SessionView), OnWorkspace)
)]
async fn detach(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<Detach>,
) -> Result<Json<SessionView>, Refusal> {
    let session = SessionId::from(request.session_id);
    Ok(Json(state.workspaces().sessions().detach(caller.project(), id, session).await?.into()))
}

/// Lists a workspace's sessions with their holders, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/sessions",
    tag = "workspaces",
    params(WorkspaceParam, SessionsQuery),
    responses((status = 200, description = "A page of sessions.", body = SessionList), OnWorkspace)
)]
async fn list_sessions(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<SessionList>, Refusal> {
    let page =
        state.workspaces().sessions().list(caller.project(), id, query.into_core()?).await?.map(SessionView::from);
    Ok(Json(SessionList { items: page.items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

// === impl Attach ===

impl Check for Attach {
    fn check(&self, faults: &mut Faults) {
        let characters = self.holder.chars().count();
        if !(1..=MOST_HOLDER).contains(&characters) || self.holder.chars().any(char::is_control) {
            faults.add("holder", "it takes 1 to 128 characters, none of them a control character");
        }
        faults.range("expires_in_seconds", self.expires_in_seconds, 1..=MOST_LEASE_SECONDS);
    }
}

impl Attach {
    /// Turns the checked request into the core's form.
    fn into_core(self) -> AttachRequest {
        AttachRequest {
            holder: self.holder,
            session: self.session_id.map(SessionId::from),
            lease: self.expires_in_seconds.map(Duration::from_secs),
            take_over: self.take_over,
        }
    }
}

impl Check for Detach {
    fn check(&self, _: &mut Faults) {}
}

// === impl SessionView ===

impl From<SessionRow> for SessionView {
    fn from(session: SessionRow) -> Self {
        let (ended_at, end_reason) = session.ended.unzip();
        Self {
            session_id: session.id.as_uuid(),
            workspace_id: session.workspace.as_uuid(),
            holder: session.holder,
            attached_at: session.attached_at,
            expires_in_seconds: session.lease.map(|lease| lease.as_secs()),
            expires_at: session.expires_at,
            ended_at,
            end_reason: end_reason.map(|reason: SessionEnd| reason.as_str().to_owned()),
        }
    }
}

// === impl SessionsQuery ===

impl Check for SessionsQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("limit", self.limit, 1..=PageRequest::MOST);
    }
}

impl SessionsQuery {
    fn into_core(self) -> Result<PageRequest, Refusal> {
        let cursor = self.cursor.map(|text| {
            let cursor = text.parse::<Cursor>();
            cursor.map_err(|error| Refusal::of_field(ProblemKind::InvalidValue, "cursor", error.to_string()))
        });
        Ok(PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT), cursor: cursor.transpose()? })
    }
}
