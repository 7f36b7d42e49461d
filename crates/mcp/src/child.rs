//! The interface to the launcher of the children: processes of one hosted server that speak MCP on stdio.
//!
//! The bridge asks a [`Launcher`] for children and is the only reader and writer of their stdio. A launcher whose
//! children outlive this process (in a container) gives them back with [`Launcher::adopt`] after a restart, with the
//! note that the bridge left with each and with the output that no reader had acknowledged.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

/// The most bytes that a note may have.
pub const NOTE_LIMIT: usize = 64 << 10;

/// Starts and finds children of one hosted server.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Starts a child and keeps the note with it. Dropping the future must leave no child behind.
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError>;

    /// The children that still run from before this process started, each with its last note. Called once, before any
    /// [`launch`](Self::launch). Output that was not acknowledged is read again; nothing is lost or read twice.
    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError>;
}

/// One child. Dropping it, with its reader and writer, lets go of it; whether it then ends is the launcher's matter:
/// local processes end, children in a container stay to be adopted.
#[async_trait]
pub trait Child: Send + Sync {
    /// The child's name among the launcher's children; the same after a restart.
    fn id(&self) -> &ChildId;

    /// The last note that was set.
    fn note(&self) -> ChildNote;

    /// Replaces the note.
    async fn set_note(&self, note: ChildNote) -> Result<(), ChildError>;

    /// The one reader and the one writer of the child's stdio; `None` when they were taken before.
    fn take_io(&mut self) -> Option<(Box<dyn ChildReader>, Box<dyn ChildWriter>)>;

    /// Waits for the child's end. Cancel-safe; any number of callers may wait, and later ones get the same answer.
    async fn exited(&self) -> Exit;

    /// Closes stdin, sends SIGTERM after a third of the grace, and SIGKILL at its end. Returns when the child, and what
    /// it left in its process group, is gone.
    async fn end(&self, grace: Duration) -> Exit;
}

/// The reader of a child's stdout, which comes in chunks of any size: the bridge finds the lines.
#[async_trait]
pub trait ChildReader: Send {
    /// The next chunk, never empty; `None` once stdout is closed. Cancel-safe. While nobody calls, the child is held
    /// up by its full pipe (or the launcher's bounded buffer), so a reader that waits is back-pressure.
    async fn read(&mut self) -> io::Result<Option<Bytes>>;

    /// Marks this many more of the bytes that were read as done with: a reader after a restart begins behind them.
    fn acknowledge(&mut self, bytes: usize);
}

/// The writer of a child's stdin.
#[async_trait]
pub trait ChildWriter: Send {
    /// Writes one whole line, its newline included. A launcher whose connection can break in the middle delivers the
    /// line wholly or not at all, so that a later writer starts on a line of its own. Waits while the child does not
    /// read; not cancel-safe, only one task calls it and lets it finish.
    async fn write(&mut self, line: Bytes) -> io::Result<()>;

    /// Closes stdin.
    async fn close(&mut self);
}

/// The name of a child among those of its launcher.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChildId(Arc<str>);

/// The note that the bridge keeps with a child, for itself after a restart: JSON of at most [`NOTE_LIMIT`] bytes,
/// opaque to launchers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildNote(Arc<str>);

/// How a child ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exit {
    /// The child's exit code, when it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// The end of the child's stderr; a few KiB, lossily decoded.
    pub stderr: String,
}

/// A note that does not fit.
#[derive(Debug, thiserror::Error)]
#[error("a child's note has {0} bytes, more than {NOTE_LIMIT}")]
pub struct NoteTooLong(usize);

/// The reason for which no child was started or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program could not be started.
    #[error("the server's program could not be started: {reason}")]
    Start {
        /// The reason, with what to do about it, in words for the server's owner.
        reason: String,
    },
    /// The place where the children run cannot be reached now, or the owner holds starts back (after crashes).
    #[error("the server is not available: {reason}")]
    Unavailable {
        /// The reason, and until when it holds.
        reason: String,
    },
}

/// The reason for which an operation on a child failed.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The child is not there any more.
    #[error("the child has ended")]
    Gone,
    /// The connection to the child broke.
    #[error("the child cannot be reached")]
    Io(#[from] io::Error),
}

// === impl ChildId ===

impl ChildId {
    /// Names a child.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ChildNote ===

impl ChildNote {
    /// Makes a note of the JSON that a launcher has kept.
    ///
    /// # Errors
    /// When it is longer than [`NOTE_LIMIT`].
    pub fn new(json: impl Into<Arc<str>>) -> Result<Self, NoteTooLong> {
        let json = json.into();
        if json.len() > NOTE_LIMIT { Err(NoteTooLong(json.len())) } else { Ok(Self(json)) }
    }

    /// The JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Exit ===

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "ended by signal {signal}"),
            (Some(code), None) => write!(f, "exited with code {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seam_is_object_safe() {
        fn takes<T: ?Sized>() {}
        takes::<dyn Launcher>();
        takes::<dyn Child>();
        takes::<dyn ChildReader>();
        takes::<dyn ChildWriter>();
    }

    #[test]
    fn note_is_bounded() {
        assert!(ChildNote::new("x".repeat(NOTE_LIMIT)).is_ok());
        assert!(ChildNote::new("x".repeat(NOTE_LIMIT + 1)).is_err());
    }
}
