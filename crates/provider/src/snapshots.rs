//! Copies of a sandbox's state, from which other sandboxes are made.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use emergent_types::{SandboxId, ServerId, SnapshotId, StepObserver};

use crate::OperationError;

/// Takes, lists and deletes snapshots. A provider that cannot says so in its capabilities, and each of these answers
/// [`OperationError::Unsupported`] then.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Copies what a sandbox has: its files in `/workspace`, and all that it has changed outside. A running sandbox is
    /// frozen while it is copied, once, so that all files are of one moment; one that is paused or stopped stays so.
    /// Passes [`SnapshotStep`](emergent_types::SnapshotStep)s `VolumeCreated` to `SandboxThawed`. On an error nothing of the
    /// snapshot is left behind and the sandbox is as it was, unless the engine went away in the middle.
    async fn take(&self, spec: &SnapshotSpec, observer: &dyn StepObserver) -> Result<Taken, TakeError>;

    /// Removes a snapshot, or what there is of one; removing what is gone succeeds. Sandboxes that were made from it
    /// run on. What only they still use goes with the last of them.
    async fn delete(&self, snapshot: SnapshotId) -> Result<(), OperationError>;

    /// Every snapshot, and every remainder of one, that carries our labels, whichever server made it. What a deleted
    /// one has left because a sandbox uses it is not listed.
    async fn list_snapshots(&self) -> Result<Vec<ObservedSnapshot>, OperationError>;
}

/// One snapshot to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Names it; names and labels in the engine follow from it.
    pub snapshot: SnapshotId,
    /// Of which sandbox.
    pub workspace: SandboxId,
}

/// The contents of a snapshot that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the files outside `/workspace` that differ from the image's.
    pub root_bytes: u64,
    /// Bytes of the files in `/workspace`.
    pub workspace_bytes: u64,
}

/// A snapshot as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSnapshot {
    /// The snapshot's id, from its label.
    pub snapshot: SnapshotId,
    /// The server that made the snapshot, from the snapshot's label.
    pub server: ServerId,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// All of it is there, so that a sandbox can be made from it.
    pub whole: bool,
}

/// The reason for which no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The engine refused, did not answer, or cannot do this.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// The files could not be copied.
    #[error("the workspace's files could not be copied: {0}")]
    CopyFailed(String),
    /// A file has a name that an image cannot keep.
    #[error(
        "the engine takes {path:?} for the mark of a removed file, as its name begins with `.wh.`, and the copy would have \
         neither it nor what it names; rename or remove it, or move it below /workspace, and take the snapshot again"
    )]
    MarkOfRemoval {
        /// The file's path.
        path: String,
    },
}
