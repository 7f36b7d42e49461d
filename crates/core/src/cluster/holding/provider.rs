//! The guarded provider: what is done to sandboxes, and what is believed of them, needs the engine to be held; what is
//! asked of the engine itself does not.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use emergent_provider::{
    ByteStream, Capabilities, ChannelError, Channels, CreateError, Created, EngineEvent, ExitReason, Health,
    HolderRecord, Holders, HostRoom, ImageCommand, ImageRef, Inventory, Lifecycle, Observed, ObservedSnapshot,
    OperationError, Origin, Provider, ProviderKind, SandboxSpec, SnapshotSpec, Snapshots, TakeError, Taken,
};
use emergent_types::{ResourceLimits, ServerId, SnapshotId, StepObserver, WorkspaceId};
use futures::stream::BoxStream;

use super::{HeldProvider, HoldError, HolderState};

const LET_ACT: &str = "let this server act on";

#[async_trait]
impl Lifecycle for HeldProvider {
    async fn create(&self, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<Created, CreateError> {
        self.ensure().await.map_err(|error| self.create_error(error))?;
        self.inner.create(spec, observer).await
    }

    async fn start(&self, workspace: WorkspaceId) -> Result<Option<ByteStream>, OperationError> {
        self.ensure_lease().await?;
        self.inner.start(workspace).await
    }

    async fn stop(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.stop(workspace).await
    }

    async fn end(&self, workspace: WorkspaceId, why: ExitReason) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.end(workspace, why).await
    }

    async fn pause(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.pause(workspace).await
    }

    async fn unpause(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.unpause(workspace).await
    }

    async fn update_limits(&self, workspace: WorkspaceId, limits: ResourceLimits) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.update_limits(workspace, limits).await
    }

    async fn mark_claimed(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.mark_claimed(workspace).await
    }

    async fn discard(&self, workspace: WorkspaceId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.discard(workspace).await
    }

    async fn destroy(&self, workspace: WorkspaceId, observer: &dyn StepObserver) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.destroy(workspace, observer).await
    }
}

#[async_trait]
impl Channels for HeldProvider {
    async fn open(&self, workspace: WorkspaceId) -> Result<ByteStream, ChannelError> {
        self.ensure().await.map_err(|error| self.channel_error(error))?;
        self.inner.open(workspace).await
    }
}

#[async_trait]
impl Inventory for HeldProvider {
    async fn inspect(&self, workspace: WorkspaceId) -> Result<Option<Observed>, OperationError> {
        self.ensure_lease().await?;
        self.inner.inspect(workspace).await
    }

    async fn list(&self) -> Result<Vec<Observed>, OperationError> {
        self.ensure_lease().await?;
        self.inner.list().await
    }

    async fn origin(&self, workspace: WorkspaceId) -> Result<Option<Origin>, OperationError> {
        self.inner.origin(workspace).await
    }

    async fn origin_of_snapshot(&self, snapshot: SnapshotId) -> Result<Option<(WorkspaceId, Origin)>, OperationError> {
        self.inner.origin_of_snapshot(snapshot).await
    }

    async fn written_outside(&self, workspace: WorkspaceId) -> Result<Option<u64>, OperationError> {
        self.inner.written_outside(workspace).await
    }

    async fn disk_use(&self, workspace: WorkspaceId, enough: u64) -> Result<Option<u64>, OperationError> {
        self.inner.disk_use(workspace, enough).await
    }

    async fn copy_use(&self, workspace: WorkspaceId) -> Result<Option<u64>, OperationError> {
        self.inner.copy_use(workspace).await
    }

    async fn task_use(&self, workspace: WorkspaceId) -> Result<Option<u64>, OperationError> {
        self.inner.task_use(workspace).await
    }

    fn host_room(&self) -> Option<HostRoom> {
        self.inner.host_room()
    }

    async fn image_id(&self, image: &ImageRef) -> Result<Option<String>, OperationError> {
        self.inner.image_id(image).await
    }

    async fn image_command(&self, image: &ImageRef) -> Result<Option<ImageCommand>, OperationError> {
        self.inner.image_command(image).await
    }

    fn pulls_images(&self) -> bool {
        self.inner.pulls_images()
    }

    async fn remove_image(&self, image: &ImageRef, id: &str) -> Result<bool, OperationError> {
        self.ensure_lease().await?;
        self.inner.remove_image(image, id).await
    }

    async fn tidy(&self, older_than: Duration) -> Result<Vec<String>, OperationError> {
        self.ensure_lease().await?;
        self.inner.tidy(older_than).await
    }

    async fn engine_id(&self) -> Result<Option<String>, OperationError> {
        self.inner.engine_id().await
    }

    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError> {
        self.inner.events().await
    }
}

#[async_trait]
impl Snapshots for HeldProvider {
    async fn take(&self, spec: &SnapshotSpec, observer: &dyn StepObserver) -> Result<Taken, TakeError> {
        self.ensure_lease().await?;
        self.inner.take(spec, observer).await
    }

    async fn delete(&self, snapshot: SnapshotId) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.delete(snapshot).await
    }

    async fn list_snapshots(&self) -> Result<Vec<ObservedSnapshot>, OperationError> {
        self.ensure_lease().await?;
        self.inner.list_snapshots().await
    }
}

#[async_trait]
impl Holders for HeldProvider {
    async fn holders(&self) -> Result<Vec<HolderRecord>, OperationError> {
        self.inner.holders().await
    }

    async fn record_holder(&self, record: &HolderRecord) -> Result<bool, OperationError> {
        self.inner.record_holder(record).await
    }

    async fn forget_holder(&self, server: ServerId) -> Result<(), OperationError> {
        self.inner.forget_holder(server).await
    }

    async fn engine_time(&self) -> Result<DateTime<Utc>, OperationError> {
        self.inner.engine_time().await
    }

    async fn hold(&self) -> Result<(), OperationError> {
        self.beat().await.map_err(|error| self.operation_error(error))
    }

    async fn remove_helpers(&self) -> Result<(), OperationError> {
        self.ensure_lease().await?;
        self.inner.remove_helpers().await
    }
}

#[async_trait]
impl Provider for HeldProvider {
    fn kind(&self) -> ProviderKind {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn health(&self) -> Health {
        let lost = match &*self.standing() {
            HolderState::Lost(to) => Some(to.to_string()),
            HolderState::Unclaimed | HolderState::Held { .. } => None,
        };
        match lost {
            Some(message) => Health { healthy: false, message, warnings: Vec::new() },
            None => self.inner.health().await,
        }
    }
}

// === impl HeldProvider ===

impl HeldProvider {
    async fn ensure_lease(&self) -> Result<(), OperationError> {
        self.ensure().await.map_err(|error| self.operation_error(error))
    }

    fn operation_error(&self, error: HoldError) -> OperationError {
        match error {
            HoldError::Engine(error) => error,
            HoldError::NotHolder(to) => {
                OperationError::Refused { engine: self.engine(), operation: LET_ACT, source: to.into() }
            }
        }
    }

    fn create_error(&self, error: HoldError) -> CreateError {
        match self.operation_error(error) {
            OperationError::EngineUnavailable { engine, advice, source } => {
                CreateError::EngineUnavailable { engine, advice, source }
            }
            OperationError::Refused { engine, source, .. } => {
                CreateError::Refused { engine, step: "let this server make a sandbox", source }
            }
            other @ (OperationError::Gone | OperationError::Unsupported { .. }) => {
                CreateError::Refused { engine: self.engine(), step: "say who acts", source: other.into() }
            }
        }
    }

    fn channel_error(&self, error: HoldError) -> ChannelError {
        match self.operation_error(error) {
            OperationError::EngineUnavailable { engine, advice, source } => {
                ChannelError::EngineUnavailable { engine, advice, source }
            }
            other => ChannelError::Refused { engine: self.engine(), source: other.into() },
        }
    }

    fn engine(&self) -> String {
        format!("the engine of provider {}", self.inner.kind())
    }
}
