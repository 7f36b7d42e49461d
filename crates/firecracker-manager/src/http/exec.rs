//! Commands in a sandbox.

use std::collections::BTreeMap;

use axum::extract::State;
use emergent_guest_proto::{
    ExecutionId, GuestPath, MAX_TIMEOUT_MS, RunAs,
    tools::{BashRequest, BashResult},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    done::Done,
    extract::{JsonBody, SandboxPath},
    problem::{Kind, Problem},
};

/// The time limit of a command whose request names none, in seconds.
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
    #[serde(default, alias = "environment")]
    env: BTreeMap<String, String>,
    #[serde(default)]
    user: RunAs,
}

/// The result of a command.
#[derive(Debug, Serialize)]
pub(super) struct ExecAnswer {
    stdout: String,
    stderr: String,
    /// Absent when the machine ended before the command did.
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

/// `POST /sandboxes/{id}/exec`: for a command that fails the answer is a 200 with its exit code, and `success` is
/// false.
pub(super) async fn exec(
    State(shared): State<Shared>,
    SandboxPath(id): SandboxPath,
    JsonBody(body): JsonBody<ExecBody>,
) -> Result<Done<ExecAnswer>, Problem> {
    let request = BashRequest {
        timeout_ms: Some(timeout_ms(body.timeout_seconds)?),
        command: body.command,
        workdir: body.working_dir,
        env: body.env,
        user: body.user,
        execution_id: None,
    };
    if request.command.trim().is_empty() || request.command.contains('\0') {
        return Err(Problem::of_field(Kind::InvalidValue, "command", "it is empty, or contains a NUL"));
    }
    let guest = shared.sandboxes.guest(id)?;
    let answer = ExecAnswer::from(guest.bash(request).await?);
    Ok(match answer.failure() {
        None => Done::well(answer),
        Some(failure) => Done::badly(answer, failure),
    })
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

impl ExecAnswer {
    /// Returns the reason why the command did not succeed, if it did not.
    fn failure(&self) -> Option<String> {
        match (self.exit_code, &self.reason) {
            _ if self.timed_out => Some(format!("the command's time was over after {} ms", self.duration_ms)),
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("the command exited with {code}")),
            (None, Some(reason)) => Some(reason.clone()),
            (None, None) => Some("the machine went before the command's end".to_owned()),
        }
    }
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
