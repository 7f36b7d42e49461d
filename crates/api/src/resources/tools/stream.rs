//! A command whose output comes as it is written.

use axum::{http::HeaderMap, response::Response};
use emergent_core::GuestSession;
use emergent_guest_proto::{
    DEFAULT_TIMEOUT_MS,
    execution::{Program, StartRequest},
    tools::BashRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    facts::CallFacts,
    http::{
        check::{Check, Faults},
        problem::Refusal,
        sse::{self, Position},
    },
};

/// Whether output comes as it is written.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// Answer with server-sent events; also asked for by `Accept: text/event-stream`.
    pub(super) stream: Option<bool>,
}

impl Check for StreamQuery {
    fn check(&self, _: &mut Faults) {}
}

/// Starts the command, or reattaches to the execution that `Last-Event-ID` names, and follows it.
pub(super) async fn bash(
    guest: GuestSession,
    request: BashRequest,
    headers: &HeaderMap,
    facts: CallFacts,
) -> Result<Response, Refusal> {
    if let Some(position) = Position::from_headers(headers)? {
        let execution = guest.call(|guest| guest.execution(&position.execution)).await?;
        return Ok(sse::response(guest, execution, position, true, facts));
    }
    let execution = guest.call(|guest| guest.start(in_background(request))).await?;
    let position = Position::start(execution.execution_id.clone());
    Ok(sse::response(guest, execution, position, true, facts))
}

fn in_background(request: BashRequest) -> StartRequest {
    let BashRequest { command, workdir, timeout_ms, env, user, execution_id } = request;
    StartRequest {
        execution_id,
        program: Program::Shell(command),
        workdir,
        env,
        timeout_ms: Some(timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS)),
        user,
        stdin: false,
    }
}
