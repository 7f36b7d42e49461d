//! The interface to a manager of sandboxes, in this process or behind its REST API.

mod local;
mod remote;

use std::path::PathBuf;

use async_trait::async_trait;
use emergent_firecracker_manager::{
    SandboxId,
    http::{CreateBody, HealthBody, SandboxBody, SnapshotBody, SnapshotRequestBody, TemplatesBody},
};
use emergent_provider::ByteStream;
use emergent_types::SnapshotId;

pub(crate) use local::Local;
pub(crate) use remote::Remote;

/// A manager of sandboxes.
#[async_trait]
pub(crate) trait Manager: Send + Sync {
    /// Returns the manager's name, for people.
    fn name(&self) -> String;

    /// Returns an id that no other manager has, if several servers could drive this one.
    fn shared_id(&self) -> Option<String>;

    /// Returns the directory of the records of holders; `None` if there are none.
    fn holders(&self) -> Option<PathBuf>;

    /// Returns the manager's state. The first call may boot a machine.
    async fn health(&self) -> Result<HealthBody, ManagerError>;

    /// Returns the manager's templates.
    async fn templates(&self) -> Result<TemplatesBody, ManagerError>;

    /// Makes a sandbox; it runs and its guest has answered when this returns.
    async fn create(&self, body: CreateBody) -> Result<SandboxBody, ManagerError>;

    /// Returns one sandbox.
    async fn get(&self, id: SandboxId) -> Result<SandboxBody, ManagerError>;

    /// Returns all sandboxes.
    async fn list(&self) -> Result<Vec<SandboxBody>, ManagerError>;

    /// Changes a sandbox.
    async fn act(&self, id: SandboxId, action: Action) -> Result<(), ManagerError>;

    /// Takes a snapshot.
    async fn snapshot(&self, id: SandboxId, body: SnapshotRequestBody) -> Result<SnapshotBody, ManagerError>;

    /// Returns all snapshots.
    async fn snapshots(&self) -> Result<Vec<SnapshotBody>, ManagerError>;

    /// Deletes a snapshot; a missing one is no error.
    async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), ManagerError>;

    /// Opens a byte stream to a guest.
    async fn open(&self, id: SandboxId) -> Result<ByteStream, ManagerError>;
}

/// A change of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Saves the sandbox's state to disk.
    Pause,
    /// Resumes the sandbox from its saved state, or boots it from its disks.
    Resume,
    /// Ends the sandbox's machine and keeps its disks.
    Stop,
    /// Removes all parts of the sandbox.
    Destroy,
}

/// The reason why a manager's call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    /// The manager is not there, or cannot run here.
    #[error("it cannot be used")]
    Down {
        /// A remedy.
        advice: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sandbox or snapshot does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The sandbox does not run.
    #[error("{0}")]
    WrongState(String),
    /// The manager refused.
    #[error("{0}")]
    Refused(String),
}

// === impl Action ===

impl Action {
    /// Returns the last part of the action's path in the REST API.
    fn path(self) -> &'static str {
        match self {
            Self::Pause => "/pause",
            Self::Resume => "/resume",
            Self::Stop => "/stop",
            Self::Destroy => "",
        }
    }
}
