//! What the provider asks of a manager, wherever it is.

mod local;
mod remote;

use std::path::PathBuf;

use async_trait::async_trait;
use emergent_firecracker_manager::{
    SandboxId,
    http::{CreateBody, HealthBody, SandboxBody, SnapshotBody, SnapshotRequestBody, TemplatesBody},
};
use emergent_provider::{ByteStream, SnapshotId};

pub(crate) use local::Local;
pub(crate) use remote::Remote;

/// A manager of sandboxes.
#[async_trait]
pub(crate) trait Manager: Send + Sync {
    /// Which one, for people.
    fn name(&self) -> String;

    /// An id that no other manager has, where several servers could drive this one.
    fn shared_id(&self) -> Option<String>;

    /// Where records of holders are kept; `None` where none are.
    fn holders(&self) -> Option<PathBuf>;

    /// How it is. The first time this may boot a machine.
    async fn health(&self) -> Result<HealthBody, ManagerError>;

    /// Its templates.
    async fn templates(&self) -> Result<TemplatesBody, ManagerError>;

    /// Makes a sandbox; it runs and its guest answered when this returns.
    async fn create(&self, body: CreateBody) -> Result<SandboxBody, ManagerError>;

    /// One sandbox.
    async fn get(&self, id: SandboxId) -> Result<SandboxBody, ManagerError>;

    /// All sandboxes.
    async fn list(&self) -> Result<Vec<SandboxBody>, ManagerError>;

    /// Changes a sandbox.
    async fn act(&self, id: SandboxId, action: Action) -> Result<(), ManagerError>;

    /// Takes a snapshot.
    async fn snapshot(&self, id: SandboxId, body: SnapshotRequestBody) -> Result<SnapshotBody, ManagerError>;

    /// All snapshots.
    async fn snapshots(&self) -> Result<Vec<SnapshotBody>, ManagerError>;

    /// Deletes a snapshot; that there is none is no error.
    async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), ManagerError>;

    /// Opens a byte stream to a guest.
    async fn open(&self, id: SandboxId) -> Result<ByteStream, ManagerError>;
}

/// A change of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Its state to disk.
    Pause,
    /// On from its state, or from its disks.
    Resume,
    /// Its machine ended, its disks kept.
    Stop,
    /// All of it removed.
    Destroy,
}

/// Why a manager did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    /// It is not there, or cannot run here.
    #[error("it cannot be used")]
    Down {
        /// What to do.
        advice: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The sandbox does not run.
    #[error("{0}")]
    WrongState(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

// === impl Action ===

impl Action {
    /// The last part of its path in the REST API.
    fn path(self) -> &'static str {
        match self {
            Self::Pause => "/pause",
            Self::Resume => "/resume",
            Self::Stop => "/stop",
            Self::Destroy => "",
        }
    }
}
