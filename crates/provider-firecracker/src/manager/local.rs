//! The manager in this process. It opens its directory when it is first needed, and tries again after a failure: the
//! kernel may be imported after the server's start.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use emergent_firecracker_manager::{
    Host, HostError, SandboxError, SandboxId, Sandboxes,
    http::{CreateBody, HealthBody, SandboxBody, SnapshotBody, SnapshotRequestBody, TemplatesBody},
    step,
};
use emergent_provider::ByteStream;
use emergent_types::SnapshotId;
use tokio::sync::OnceCell;

use super::{Action, Manager, ManagerError};

/// The manager in this process.
pub(crate) struct Local {
    host: Host,
    opened: Arc<OnceCell<Sandboxes>>,
}

// === impl Local ===

impl Local {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, opened: Arc::default() }
    }

    async fn sandboxes(&self) -> Result<Sandboxes, ManagerError> {
        if let Some(sandboxes) = self.opened.get() {
            return Ok(sandboxes.clone());
        }
        let (host, opened) = (self.host.clone(), Arc::clone(&self.opened));
        // In a task of its own: a caller whose patience ends does not make the next one begin again.
        let opening =
            tokio::spawn(async move { opened.get_or_try_init(|| host.open(step::unhindered())).await.cloned() });
        let down = |source: Box<dyn std::error::Error + Send + Sync>| ManagerError::Down {
            advice: "see docs/FIRECRACKER.md for what a host needs".to_owned(),
            source,
        };
        opening.await.map_err(|error| down(error.into()))?.map_err(|error: HostError| down(error.into()))
    }
}

#[async_trait]
impl Manager for Local {
    fn name(&self) -> String {
        format!("the microVMs in {}", self.host.manager.base.display())
    }

    fn shared_id(&self) -> Option<String> {
        None
    }

    fn holders(&self) -> Option<PathBuf> {
        Some(self.host.manager.base.join("holders"))
    }

    async fn health(&self) -> Result<HealthBody, ManagerError> {
        Ok(HealthBody::of(&self.sandboxes().await?).await)
    }

    async fn templates(&self) -> Result<TemplatesBody, ManagerError> {
        Ok(self.sandboxes().await?.templates().into())
    }

    async fn create(&self, body: CreateBody) -> Result<SandboxBody, ManagerError> {
        let (record, _) = self.sandboxes().await?.create(body.into()).await?;
        Ok(record.into())
    }

    async fn get(&self, id: SandboxId) -> Result<SandboxBody, ManagerError> {
        Ok(self.sandboxes().await?.get(id)?.into())
    }

    async fn list(&self) -> Result<Vec<SandboxBody>, ManagerError> {
        Ok(self.sandboxes().await?.list().into_iter().map(Into::into).collect())
    }

    async fn act(&self, id: SandboxId, action: Action) -> Result<(), ManagerError> {
        let sandboxes = self.sandboxes().await?;
        match action {
            Action::Pause => sandboxes.pause(id).await.map(drop)?,
            Action::Resume => sandboxes.resume(id).await.map(drop)?,
            Action::Stop => sandboxes.stop(id).await.map(drop)?,
            Action::Destroy => sandboxes.destroy(id).await?,
        }
        Ok(())
    }

    async fn snapshot(&self, id: SandboxId, body: SnapshotRequestBody) -> Result<SnapshotBody, ManagerError> {
        Ok(self.sandboxes().await?.snapshot(id, body.into()).await?.into())
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotBody>, ManagerError> {
        Ok(self.sandboxes().await?.snapshots()?.into_iter().map(Into::into).collect())
    }

    async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), ManagerError> {
        Ok(self.sandboxes().await?.delete_snapshot(id).await?)
    }

    async fn open(&self, id: SandboxId) -> Result<ByteStream, ManagerError> {
        Ok(self.sandboxes().await?.open(id).await?)
    }
}

impl From<SandboxError> for ManagerError {
    fn from(error: SandboxError) -> Self {
        let message = emergent_types::error_chain(&error);
        match error {
            SandboxError::NotFound(_) | SandboxError::SnapshotNotFound(_) => Self::NotFound(message),
            SandboxError::WrongState { .. } => Self::WrongState(message),
            SandboxError::Stopping => {
                Self::Down { advice: "start the server again".to_owned(), source: Box::new(error) }
            }
            _ => Self::Refused(message),
        }
    }
}
