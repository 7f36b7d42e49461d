//! The start, stop, pause and removal of machines.

use async_trait::async_trait;
use emergent_provider::{ByteStream, CreateError, Created, Lifecycle, OperationError, SandboxSpec};
use emergent_types::{DestroyStep, ResourceLimits, SandboxId, StepObserver};

use crate::{
    FirecrackerProvider, create, error,
    manager::{Action, ManagerError},
};

#[async_trait]
impl Lifecycle for FirecrackerProvider {
    async fn create(&self, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<Created, CreateError> {
        create::create(self, spec, observer).await
    }

    async fn start(&self, workspace: SandboxId) -> Result<Option<ByteStream>, OperationError> {
        self.act(workspace, Action::Resume, "start").await.map(|()| None)
    }

    async fn stop(&self, workspace: SandboxId) -> Result<(), OperationError> {
        self.act(workspace, Action::Stop, "stop").await
    }

    async fn pause(&self, workspace: SandboxId) -> Result<(), OperationError> {
        self.act(workspace, Action::Pause, "pause").await
    }

    async fn unpause(&self, workspace: SandboxId) -> Result<(), OperationError> {
        self.act(workspace, Action::Resume, "unpause").await
    }

    async fn update_limits(&self, _: SandboxId, _: ResourceLimits) -> Result<(), OperationError> {
        let reason = "a machine's memory and CPUs are what it was made with".to_owned();
        Err(OperationError::Unsupported { operation: "update_limits", reason })
    }

    async fn destroy(&self, workspace: SandboxId, observer: &dyn StepObserver) -> Result<(), OperationError> {
        match self.manager.act(workspace.as_uuid().into(), Action::Destroy).await {
            Ok(()) | Err(ManagerError::NotFound(_)) => {}
            Err(failure) => return Err(error::operation_error(&*self.manager, "remove", failure)),
        }
        observer.destroyed(workspace, DestroyStep::SandboxRemoved);
        observer.destroyed(workspace, DestroyStep::VolumesRemoved);
        Ok(())
    }
}

// === impl FirecrackerProvider ===

impl FirecrackerProvider {
    async fn act(&self, workspace: SandboxId, action: Action, word: &'static str) -> Result<(), OperationError> {
        let done = self.manager.act(workspace.as_uuid().into(), action).await;
        done.map_err(|failure| error::operation_error(&*self.manager, word, failure))
    }
}
