//! Children: long-lived processes that speak on their standard input and output.
//!
//! Unlike an execution's, a child's output goes through memory: at once to the attached reader, and kept until it is
//! acknowledged. Offsets count the bytes of a stream from the child's start, so that a reader or writer that was cut
//! off goes on exactly where it was. A child whose output nobody reads is held up; its output is never cut.
//!
//! ```text
//!   server                                        guest
//!   POST …/stdout?offset=n    ──►                 raw output from n on      ──► (the answer's body)
//!     body: acknowledged offsets, 8 bytes each    …
//!   POST …/stdin              ──►                 header: the offset after the last whole line that came
//!     body: raw input from there on               body: offsets that have come since, 8 bytes each
//! ```
//!
//! Input is lines. A line that is cut off in the middle never reaches the child: the next writer begins with a whole
//! line.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{ExecutionId, GuestPath, InvalidExecutionId, RunAs};

/// The header that says at which offset a stream begins.
pub const OFFSET_HEADER: &str = "emergent-offset";
/// The number of bytes of input that may be under way and not yet taken. More than that would let a child that does not
/// read fill the connection's window.
pub const STDIN_WINDOW: u64 = 128 * 1024;
/// Bytes of standard error that are kept: the last ones.
pub const STDERR_KEPT: usize = 64 * 1024;
/// The longest note, in bytes.
pub const NOTE_LIMIT: usize = 64 * 1024;
/// Bytes of output that are kept for a reader when the spawn does not say.
pub const DEFAULT_BUFFER: u64 = 4 << 20;
/// The longest line of input.
pub const MAX_LINE: usize = 64 << 20;
/// The most bytes of output that can be kept for a reader.
pub const MAX_BUFFER: u64 = 128 << 20;
/// The most children that a guest has, those that have ended and were not forgotten among them.
pub const MAX_CHILDREN: usize = 512;

/// Names a child within its guest; the caller that starts the child chooses the name. Of the same form as an
/// [`ExecutionId`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(ExecutionId);

/// Starts a child.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnChild {
    /// The child's name; another child must not have it.
    pub child_id: ChildId,
    /// The program and its arguments. Never empty.
    pub argv: Vec<String>,
    /// The working directory; `/workspace` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<GuestPath>,
    /// Variables that are added to the environment. Values may be secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user that the child runs as.
    #[serde(default)]
    pub user: RunAs,
    /// A text that is kept and shown with the child; the guest does not interpret it.
    #[serde(default)]
    pub note: String,
    /// Sends standard output where standard error goes: for a child whose output has no reader.
    #[serde(default)]
    pub stdout_to_stderr: bool,
    /// The number of bytes of output that are kept for a reader before the child is held up.
    #[serde(default = "default_buffer")]
    pub buffer: u64,
}

/// A child and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// The child's name.
    pub child_id: ChildId,
    /// The child's process id.
    pub pid: u32,
    /// When the child was started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How the child ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ChildExit>,
    /// The note that is kept with the child.
    pub note: String,
    /// The offset up to which output has been acknowledged.
    pub stdout_acknowledged: u64,
    /// The offset of the next byte of output.
    pub stdout_end: u64,
    /// The offset of the next byte of standard error.
    pub stderr_end: u64,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildExit {
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal's number, where one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// The children that the guest has, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildList {
    /// The children.
    pub children: Vec<ChildStatus>,
}

/// The offset from which to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OffsetQuery {
    /// The offset of the first byte wanted; absent: that of the first byte that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// A new note for a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRequest {
    /// The note.
    pub note: String,
}

/// Ends a child: closes its standard input, then sends SIGTERM, then SIGKILL, to its whole process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRequest {
    /// Milliseconds between the end of the child's input and SIGTERM.
    pub eof_ms: u64,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
}

/// The target of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelQuery {
    /// A TCP port on the sandbox's own loopback interface.
    pub port: u16,
}

fn default_buffer() -> u64 {
    DEFAULT_BUFFER
}

// === impl ChildId ===

impl ChildId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidExecutionId`] when a character or the length is not allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidExecutionId> {
        ExecutionId::new(text).map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

// === impl SpawnChild ===

impl fmt::Debug for SpawnChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.env.keys().collect::<Vec<_>>();
        f.debug_struct("SpawnChild")
            .field("child_id", &self.child_id)
            .field("argv", &self.argv)
            .field("workdir", &self.workdir)
            .field("env", &keys)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
