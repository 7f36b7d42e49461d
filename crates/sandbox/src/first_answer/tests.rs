//! Guests that do not answer, in sandboxes in several states.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use emergent_guest_client::Open;
use emergent_provider::{ByteStream, ChannelError, ContainerKind, EngineEvent, ExitReason, ImageRef, Observed, Origin};
use emergent_types::{ServerId, SnapshotId};
use futures::stream::{self, BoxStream};

use super::*;

/// A sandbox without a guest, in a state; `None` where the engine does not answer.
struct Sandbox(Option<EngineState>);

#[async_trait]
impl Open for Sandbox {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        Err(ChannelError::NotRunning)
    }
}

#[async_trait]
impl Inventory for Sandbox {
    async fn inspect(&self, workspace: SandboxId) -> Result<Option<Observed>, OperationError> {
        let state = self.0.clone().ok_or(OperationError::Gone)?;
        Ok(Some(Observed {
            workspace,
            server: ServerId::generate(),
            kind: ContainerKind::AgentWorkspace,
            created_at: SystemTime::now().into(),
            state,
            claimed: None,
        }))
    }

    async fn list(&self) -> Result<Vec<Observed>, OperationError> {
        Ok(Vec::new())
    }

    async fn origin(&self, _: SandboxId) -> Result<Option<Origin>, OperationError> {
        Ok(None)
    }

    async fn origin_of_snapshot(&self, _: SnapshotId) -> Result<Option<(SandboxId, Origin)>, OperationError> {
        Ok(None)
    }

    async fn image_id(&self, _: &ImageRef) -> Result<Option<String>, OperationError> {
        Ok(None)
    }

    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError> {
        Ok(Box::pin(stream::pending()))
    }
}

async fn wait(state: Option<EngineState>, within: Duration) -> NoAnswer {
    let guest = Guest::new(Arc::new(Sandbox(state.clone())), None);
    first_answer(&Sandbox(state), SandboxId::generate(), &guest, within).await.unwrap_err()
}

#[tokio::test]
async fn a_sandbox_that_has_ended_is_not_waited_for() {
    let ended = wait(Some(EngineState::Exited(ExitReason::Code(1))), FIRST_ANSWER).await;
    assert!(matches!(ended, NoAnswer::Ended(_)), "{ended}");
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_not_waited_for() {
    let unknown = wait(None, FIRST_ANSWER).await;
    assert!(matches!(unknown, NoAnswer::Unknown { source: OperationError::Gone, .. }), "{unknown}");
}

#[tokio::test]
async fn a_guest_that_is_silent_is_waited_for_until_the_deadline() {
    let began = Instant::now();
    let silent = wait(Some(EngineState::Running), Duration::from_millis(50)).await;
    assert!(matches!(silent, NoAnswer::Silent(_)) && began.elapsed() >= Duration::from_millis(50), "{silent}");
}
