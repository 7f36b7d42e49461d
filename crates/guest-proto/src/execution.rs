//! Executions: commands whose output outlives the caller's connection.
//!
//! ```text
//!   start ──► running ──► exited | timed_out | cancelled
//!                 └──────► lost        (the sandbox ended under it)
//! ```
//!
//! Output goes from the process straight into two files, never through a pipe, and is addressed by the offset of a byte
//! in its stream. A caller that knows the execution's id can read from any offset at any time.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::GuestPath;

/// Names an execution within its workspace: 1 to 64 of `A-Z a-z 0-9 _ -`. The caller may choose it, so that a start
/// whose answer was lost can be found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[A-Za-z0-9_-]{1,64}$"))]
#[serde(transparent)]
pub struct ExecutionId(String);

/// A text that cannot be an [`ExecutionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an execution id is 1 to 64 of the characters A-Z a-z 0-9 _ -")]
pub struct InvalidExecutionId;

impl ExecutionId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidExecutionId`] when a character or the length is not allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidExecutionId> {
        let text = text.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(InvalidExecutionId)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The user that a command runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunAs {
    /// uid and gid 1000.
    #[default]
    Agent,
    /// root inside the workspace, where the workspace allows it.
    Root,
}

/// The command of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    /// A line for the image's shell: `bash -c`, or `sh -c` where there is no bash.
    Shell(String),
    /// A program and its arguments, run without a shell. Never empty.
    Argv(Vec<String>),
}

/// Starts an execution in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// The execution's id; the guest makes one if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// The command to run.
    pub program: Program,
    /// The working directory; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<GuestPath>,
    /// Variables that are added to the workspace's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ends the execution after this many milliseconds; by default a background execution has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The user that the command runs as.
    #[serde(default)]
    pub user: RunAs,
    /// Keep standard input open for [`ExecutionInput`](crate::Route::ExecutionInput); otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The process ended by itself.
    Exited,
    /// The time limit ended it.
    TimedOut,
    /// A caller cancelled it.
    Cancelled,
    /// The sandbox ended under it.
    Lost,
}

/// Whether an execution is running, and if not, how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ExecutionState {
    /// The process is alive.
    Running,
    /// The process is gone.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// The exit code; 128 + the signal's number for a process that a signal ended, as a shell says it. Absent
        /// when the execution is lost.
        exit_code: Option<i32>,
        /// The signal that ended the process, such as `SIGKILL`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        /// Wall-clock time from start to end, in milliseconds.
        duration_ms: u64,
        /// The reason for which the execution was lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// An execution and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Execution {
    /// The execution's id.
    pub execution_id: ExecutionId,
    /// The command as the caller gave it, cut after 1,000 characters.
    pub command: String,
    /// The process id inside the workspace.
    pub pid: u32,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// Whether the execution is running or has ended.
    #[serde(flatten)]
    pub state: ExecutionState,
    /// Bytes written to standard output so far: the offset of its next byte.
    pub stdout_bytes: u64,
    /// Bytes written to standard error so far.
    pub stderr_bytes: u64,
    /// Bytes at the beginning of both streams that the workspace's output budget no longer keeps.
    #[serde(default)]
    pub dropped_bytes: u64,
    /// The file inside the workspace that holds standard output.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub stdout_file: GuestPath,
    /// The file inside the workspace that holds standard error.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub stderr_file: GuestPath,
}

/// The executions that the guest still knows, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecutionList {
    /// The executions.
    pub executions: Vec<Execution>,
}

/// The offsets from which to read output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputQuery {
    /// Offset in standard output of the first byte wanted; absent: no standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// Offset in standard error of the first byte wanted; absent: no standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// Go on until the execution ends, rather than until all output that exists now has been sent.
    #[serde(default)]
    pub follow: bool,
}

/// A signal for the process group of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// A name such as `SIGINT` or `INT`.
    pub signal: String,
}

/// The treatment of standard input after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StdinQuery {
    /// Close standard input when the bytes are written.
    #[serde(default)]
    pub close: bool,
}

// === impl ExecutionId ===

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ExecutionId {
    type Err = InvalidExecutionId;

    fn from_str(text: &str) -> Result<Self, InvalidExecutionId> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for ExecutionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

// === impl ExecutionState ===

impl ExecutionState {
    /// Whether the process is gone.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}
