//! Running commands.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use emergent_guest_proto::{
    ExecutionId, GuestPath, MAX_TIMEOUT_MS, RunAs,
    tools::{BashRequest, BashResult},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    extract::{JsonBody, SandboxPath},
    problem::{Kind, Problem},
};

/// How long a command may take when nobody says, in seconds.
const DEFAULT_TIMEOUT: f64 = 300.0;

/// A command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecBody {
    command: String,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    #[serde(default)]
    working_dir: Option<GuestPath>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    user: RunAs,
}

/// What it did.
#[derive(Debug, Serialize)]
pub(super) struct ExecAnswer {
    stdout: String,
    stderr: String,
    /// Absent when the machine went before the command's end.
    exit_code: Option<i32>,
    duration_ms: u64,
    timed_out: bool,
    truncated: bool,
    stdout_bytes: u64,
    stderr_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_file: Option<GuestPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_file: Option<GuestPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    execution_id: ExecutionId,
}

/// `POST /sandboxes/{id}/exec`: a command that fails is a success of this call.
pub(super) async fn exec(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<ExecBody>,
) -> Result<Json<ExecAnswer>, Problem> {
    let request = BashRequest {
        timeout_ms: Some(timeout_ms(body.timeout_seconds)?),
        command: body.command,
        workdir: body.working_dir,
        env: body.env,
        user: body.user,
        execution_id: None,
    };
    if request.command.is_empty() || request.command.contains('\0') {
        return Err(Problem::of_field(Kind::InvalidValue, "command", "it is empty, or contains a NUL"));
    }
    let guest = shared.sandboxes.guest(id)?;
    Ok(Json(guest.bash(request).await?.into()))
}

fn timeout_ms(seconds: Option<f64>) -> Result<u64, Problem> {
    let milliseconds = seconds.unwrap_or(DEFAULT_TIMEOUT) * 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "a day's milliseconds are exact")]
    let most = MAX_TIMEOUT_MS as f64;
    if !(1.0..=most).contains(&milliseconds) {
        return Err(Problem::of_field(Kind::InvalidValue, "timeout_seconds", "it takes 0.001 to 86400 seconds"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    let whole = milliseconds as u64;
    Ok(whole)
}

impl From<BashResult> for ExecAnswer {
    fn from(result: BashResult) -> Self {
        Self {
            stdout: result.stdout,
            stderr: result.stderr,
            exit_code: result.exit_code,
            duration_ms: result.duration_ms,
            timed_out: result.timed_out,
            truncated: result.truncated,
            stdout_bytes: result.stdout_bytes,
            stderr_bytes: result.stderr_bytes,
            stdout_file: result.stdout_file,
            stderr_file: result.stderr_file,
            reason: result.reason,
            execution_id: result.execution_id,
        }
    }
}
