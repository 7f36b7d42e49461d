//! Processes: executions that callers start, follow, signal and wait for.

mod output;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use emergent_core::Purpose;
use emergent_guest_proto::{
    Execution, ExecutionId, GuestPath, MAX_TIMEOUT_MS, RunAs,
    execution::{ExecutionList, Program, SignalRequest, StartRequest},
    tools::BashResult,
};
use emergent_store::Tool;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::{
    auth::Caller,
    facts::Arguments,
    http::{
        check::{Check, Faults},
        extract::{ExecutionPath, JsonBody, Query, RawBody, WorkspacePath},
        problem::{OnGuest, Refusal},
        route::{COMMAND, READ, Routes, WRITE, of_workspace},
    },
    resources::params::{ExecutionParams, WorkspaceParam},
    state::ApiState,
};

/// A process to start in the background: `command` or `argv`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "command": "python3 -m http.server 8000" }))]
pub struct StartProcess {
    /// A command line for `bash -c` (`sh -c` where the image has no bash).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments, run without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 10_000)]
    pub argv: Option<Vec<String>>,
    /// The directory in which the process runs; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub workdir: Option<GuestPath>,
    /// Variables that are added to the workspace's environment.
    #[serde(default, alias = "environment", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The time after which the process is ended, in milliseconds; no limit by default.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// The user that the process runs as.
    #[serde(default)]
    pub user: RunAs,
    /// Whether standard input stays open for `…/stdin`; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// The execution's id, chosen by the caller, so that a start whose answer was lost can be found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

/// The handling of standard input after the bytes.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StdinQuery {
    /// Whether standard input is closed once the bytes are written.
    #[serde(default)]
    close: bool,
}

/// The time to wait for a process.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// The seconds to wait before the answer is 202; left out: until the process has ended.
    #[param(minimum = 0, maximum = 86_400)]
    wait_seconds: Option<u64>,
}

pub(crate) fn routes() -> Routes<ApiState> {
    Routes::new()
        .operation(routes!(start_process), of_workspace(WRITE).tool(Tool::Bash).body(COMMAND))
        .operation(routes!(list_processes), of_workspace(READ).tool(Tool::Bash))
        .operation(routes!(get_process), of_workspace(READ).tool(Tool::Bash))
        .operation(routes!(output::process_output), of_workspace(READ).tool(Tool::Bash))
        .operation(routes!(signal_process), of_workspace(WRITE).tool(Tool::Bash))
        .operation(routes!(cancel_process), of_workspace(WRITE).tool(Tool::Bash))
        .operation(routes!(write_stdin), of_workspace(WRITE).tool(Tool::Bash))
        .operation(routes!(wait_for_process), of_workspace(READ).tool(Tool::Bash))
}

/// Starts a process in the background and answers at once.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/processes",
    tag = "processes",
    params(WorkspaceParam),
    request_body = StartProcess,
    responses(
        (status = 201, description = "It runs.", body = Execution, headers(("Location" = String, description = "Its URL."))),
        OnGuest,
    )
)]
async fn start_process(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
    JsonBody(request): JsonBody<StartProcess>,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest_for(caller.project(), id, Purpose::Run).await?;
    let execution = guest.call(|guest| guest.start(request.into_guest())).await?;
    let location = format!("/api/v1/agent/workspaces/{id}/processes/{}", execution.execution_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(execution)).into_response())
}

/// Lists the executions that the workspace still knows, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/processes",
    tag = "processes",
    params(WorkspaceParam),
    responses((status = 200, description = "The executions.", body = ExecutionList), OnGuest)
)]
async fn list_processes(
    caller: Caller,
    State(state): State<ApiState>,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<ExecutionList>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.executions()).await?))
}

/// Shows an execution.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}",
    tag = "processes",
    params(ExecutionParams),
    responses((status = 200, description = "The execution.", body = Execution), OnGuest)
)]
async fn get_process(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
) -> Result<Json<Execution>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.execution(&execution)).await?))
}

/// Sends a signal to the process group.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}/signal",
    tag = "processes",
    params(ExecutionParams),
    request_body = SignalRequest,
    responses((status = 204, description = "It was sent."), OnGuest)
)]
async fn signal_process(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
    JsonBody(request): JsonBody<SignalRequest>,
) -> Result<StatusCode, Refusal> {
    state.workspaces().guest(caller.project(), id).await?.call(|guest| guest.signal(&execution, &request)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a process and its whole tree: SIGTERM, and SIGKILL 5 s later. Cancelling an ended process changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}/cancel",
    tag = "processes",
    params(ExecutionParams),
    responses((status = 200, description = "It has ended.", body = Execution), OnGuest)
)]
async fn cancel_process(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
) -> Result<Json<Execution>, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    Ok(Json(guest.call(|guest| guest.cancel(&execution)).await?))
}

/// Writes the body to the process's standard input.
///
/// Answers when the process's pipe has taken all of it. The process must have been started with `stdin: true`.
#[utoipa::path(
    post,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}/stdin",
    tag = "processes",
    params(ExecutionParams, StdinQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Any bytes, of any length."),
    responses((status = 204, description = "It was written."), OnGuest)
)]
async fn write_stdin(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
    Query(query): Query<StdinQuery>,
    RawBody(bytes): RawBody,
) -> Result<StatusCode, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    guest.call(|guest| guest.stdin(&execution, bytes, query.close)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits for an execution to end. Can be repeated, also after it has ended.
#[utoipa::path(
    get,
    path = "/api/v1/agent/workspaces/{id}/processes/{execution_id}/wait",
    tag = "processes",
    params(ExecutionParams, WaitQuery),
    responses(
        (status = 200, description = "It has ended.", body = BashResult),
        (status = 202, description = "It is still running after `wait_seconds`.", body = Execution),
        OnGuest,
    )
)]
async fn wait_for_process(
    caller: Caller,
    State(state): State<ApiState>,
    ExecutionPath(id, execution): ExecutionPath,
    Query(query): Query<WaitQuery>,
) -> Result<Response, Refusal> {
    let guest = state.workspaces().guest(caller.project(), id).await?;
    let Some(seconds) = query.wait_seconds else { return Ok(Json(guest.wait(&execution).await?).into_response()) };
    match tokio::time::timeout(Duration::from_secs(seconds), guest.wait(&execution)).await {
        Ok(result) => Ok(Json(result?).into_response()),
        Err(_) => {
            Ok((StatusCode::ACCEPTED, Json(guest.call(|guest| guest.execution(&execution)).await?)).into_response())
        }
    }
}

// === impl StartProcess ===

impl Check for StartProcess {
    fn check(&self, faults: &mut Faults) {
        match (&self.command, &self.argv) {
            (Some(command), None) => {
                faults.command("command", command);
            }
            (None, Some(argv)) => {
                faults.not_empty("argv", argv.first().map_or("", |program| program.trim()));
                for (index, argument) in argv.iter().enumerate() {
                    faults.argument(&format!("argv[{index}]"), argument);
                }
            }
            (None, None) | (Some(_), Some(_)) => faults.add("command", "give either command or argv"),
        }
        faults.range("timeout_ms", self.timeout_ms, 1..=MAX_TIMEOUT_MS);
        faults.environment("env", &self.env);
    }

    fn arguments(&self, kept: &mut Arguments) {
        if let Some(command) = &self.command {
            kept.command("command", command);
        }
        if let Some(argv) = &self.argv {
            kept.optional("program", argv.first());
            kept.number("arguments", argv.len().saturating_sub(1) as u64);
        }
        kept.optional("workdir", self.workdir.as_ref());
        kept.optional("execution_id", self.execution_id.as_ref());
    }
}

impl StartProcess {
    /// Turns the checked request into the guest's form.
    fn into_guest(self) -> StartRequest {
        let program = match (self.command, self.argv) {
            (Some(command), _) => Program::Shell(command),
            (None, argv) => Program::Argv(argv.unwrap_or_default()),
        };
        StartRequest {
            execution_id: self.execution_id,
            program,
            workdir: self.workdir,
            env: self.env,
            timeout_ms: self.timeout_ms,
            user: self.user,
            stdin: self.stdin,
        }
    }
}

impl Check for StdinQuery {
    fn check(&self, _: &mut Faults) {}
}

impl Check for WaitQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("wait_seconds", self.wait_seconds, 0..=86_400);
    }
}
