//! Calls that change something in a workspace: what came of one whose answer was lost.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderName, request::Parts},
};
use emergent_guest_client::new_call_id;
use emergent_guest_proto::{CallId, CallOutcome, call::InvalidCallId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    auth::Caller,
    http::{
        extract::{WorkspacePath, path_parameter},
        problem::{OnGuest, Problem, ProblemKind, Refusal},
        route::{Routes, WRITE, of_workspace},
    },
    resources::params::CallParams,
    state::ApiState,
};

/// The header in which a caller names a call.
const CALL: HeaderName = HeaderName::from_static("emergent-call");

/// The name of a call that changes something: its caller's, or one that is made for it.
pub(crate) struct CallName(pub(crate) CallId);

/// The workspace and the call that the path names.
struct CallPath(WorkspacePath, CallId);

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CallReport {
    /// The call is under way. Ask again.
    Running,
    /// The call did what it was asked for.
    Done {
        /// The body of its answer; null where that has none.
        answer: Value,
    },
    /// The call was refused or failed.
    Refused {
        /// The reason of the refusal, as a problem.
        problem: Problem,
    },
    /// The call has not begun, and will not: when it comes now, it is refused.
    NotBegun {
        /// The workspace knows all calls of the last so many milliseconds, at most those since it was started. A call
        /// that was sent earlier may have happened; nothing more comes of it.
        known_for_ms: u64,
    },
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new().operation(routes!(get_call), of_workspace(WRITE).any_tool())
}

/// Tells what came of a call that changes something.
///
/// Ask when the answer was lost: after `call-interrupted` or `call-timed-out`, whose problems name the call, or when
/// your own connection broke and you had named the call in the header `Emergent-Call`. Commands are executions: they
/// are at
/// `…/processes/{execution_id}`. When the state is not `running`, nothing more comes of the call.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/calls/{call_id}",
    tag = "tools",
    params(CallParams),
    responses((status = 200, description = "What came of it.", body = CallReport), OnGuest)
)]
async fn get_call(
    caller: Caller,
    State(state): State<ApiState>,
    CallPath(WorkspacePath(id), call): CallPath,
) -> Result<Json<CallReport>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    let outcome = guest.call(|guest| guest.outcome(&call)).await?;
    Ok(Json(outcome.into()))
}

impl<S: Send + Sync> FromRequestParts<S> for CallName {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(name) = parts.headers.get(&CALL) else { return Ok(Self(new_call_id())) };
        let call = name.to_str().map_err(|_| InvalidCallId).and_then(CallId::new);
        call.map(Self).map_err(|error| refused("Emergent-Call", error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CallPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let workspace = WorkspacePath::from_request_parts(parts, state).await?;
        let call = CallId::new(path_parameter(parts, state, "call_id").await?);
        call.map(|call| Self(workspace, call)).map_err(|error| refused("call_id", error))
    }
}

fn refused(field: &str, error: InvalidCallId) -> Refusal {
    Refusal::of_field(ProblemKind::InvalidRequest, field, error.to_string())
}

impl From<CallOutcome> for CallReport {
    fn from(outcome: CallOutcome) -> Self {
        match outcome {
            CallOutcome::Running => Self::Running,
            CallOutcome::Done { answer } => Self::Done { answer },
            CallOutcome::Refused { error } => Self::Refused { problem: Refusal::from(error).problem().clone() },
            CallOutcome::NotBegun { known_for_ms } => Self::NotBegun { known_for_ms },
        }
    }
}
