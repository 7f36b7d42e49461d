//! The manager's sandboxes, and the events of their changes.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use emergent_firecracker_manager::{Phase, http::SandboxBody};
use emergent_provider::{
    ByteStream, ChannelError, Channels, EngineEvent, EngineEventKind, EngineState, ExitReason, ImageRef, Inventory,
    Observed, OperationError, Origin, Owner,
};
use emergent_types::{SandboxId, SnapshotId};
use futures::{StreamExt as _, stream::BoxStream};

use crate::{FirecrackerProvider, error, image, labels, manager::ManagerError};

/// The interval at which the sandboxes' states are queried.
const INTERVAL: Duration = Duration::from_secs(1);
/// The exit code of a killed process.
const KILLED: i64 = 137;

#[async_trait]
impl Channels for FirecrackerProvider {
    async fn open(&self, workspace: SandboxId) -> Result<ByteStream, ChannelError> {
        let opened = self.manager.open(workspace.as_uuid().into()).await;
        opened.map_err(|failure| error::channel_error(&*self.manager, failure))
    }
}

#[async_trait]
impl Inventory for FirecrackerProvider {
    async fn inspect(&self, workspace: SandboxId) -> Result<Option<Observed>, OperationError> {
        match self.manager.get(workspace.as_uuid().into()).await {
            Ok(sandbox) => Ok(observed(&sandbox)),
            Err(ManagerError::NotFound(_)) => Ok(None),
            Err(failure) => Err(error::operation_error(&*self.manager, "inspect", failure)),
        }
    }

    async fn list(&self) -> Result<Vec<Observed>, OperationError> {
        let sandboxes = self.manager.list().await;
        let sandboxes = sandboxes.map_err(|failure| error::operation_error(&*self.manager, "list", failure))?;
        Ok(sandboxes.iter().filter_map(observed).collect())
    }

    async fn origin(&self, workspace: SandboxId) -> Result<Option<Origin>, OperationError> {
        match self.manager.get(workspace.as_uuid().into()).await {
            Ok(sandbox) => Ok(Origin::from_labels(&sandbox.labels)),
            Err(ManagerError::NotFound(_)) => Ok(None),
            Err(failure) => Err(error::operation_error(&*self.manager, "inspect", failure)),
        }
    }

    async fn origin_of_snapshot(&self, snapshot: SnapshotId) -> Result<Option<(SandboxId, Origin)>, OperationError> {
        let listed = self.manager.snapshots().await;
        let listed =
            listed.map_err(|failure| error::operation_error(&*self.manager, "list the snapshots of", failure))?;
        let found = listed.into_iter().find(|known| known.snapshot_id == snapshot.as_uuid());
        Ok(found.and_then(|known| labels::source_of(&known.labels)))
    }

    async fn image_id(&self, image: &ImageRef) -> Result<Option<String>, OperationError> {
        let known = self.manager.templates().await;
        let known = known.map_err(|failure| error::operation_error(&*self.manager, "list", failure))?;
        let template = image::template_for(image, &self.default_image, &known.templates);
        // A manager of another version may know no more of it than its name.
        Ok(template.map(|name| known.fingerprints.get(&name).cloned().unwrap_or(name)))
    }

    async fn engine_id(&self) -> Result<Option<String>, OperationError> {
        Ok(self.manager.shared_id())
    }

    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError> {
        let manager = std::sync::Arc::clone(&self.manager);
        let first = manager.list().await.map_err(|failure| error::operation_error(&*self.manager, "watch", failure))?;
        let mut known = states(&first);
        Ok(async_stream::stream! {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let Ok(sandboxes) = manager.list().await else { return };
                let now = states(&sandboxes);
                for event in changes(&known, &now) {
                    yield event;
                }
                known = now;
            }
        }
        .boxed())
    }
}

/// Describes a sandbox as the manager reports it; `None` when its labels name no workspace, or not its own.
fn observed(sandbox: &SandboxBody) -> Option<Observed> {
    let owner = Owner::from_labels(&sandbox.labels)?;
    // The sandbox has its workspace's id; another's labels prove nothing.
    (owner.workspace.as_uuid() == sandbox.sandbox_id).then(|| Observed {
        workspace: owner.workspace,
        server: owner.server,
        kind: owner.kind,
        created_at: sandbox.created_at,
        state: state(sandbox),
        // Labels stay as they are made: whether a machine that was made ahead of need is somebody's by now, its guest
        // alone knows.
        claimed: (!Origin::is_warm(&sandbox.labels)).then_some(true),
    })
}

fn state(sandbox: &SandboxBody) -> EngineState {
    match sandbox.status {
        Phase::Creating => EngineState::Created,
        Phase::Ready | Phase::Pausing | Phase::Stopping => EngineState::Running,
        Phase::Paused | Phase::Resuming => EngineState::Paused,
        Phase::Stopped | Phase::Starting => {
            // Nobody asked for it where there is a reason.
            let code = if sandbox.reason.is_some() { KILLED } else { 0 };
            EngineState::Exited(ExitReason::Code(code))
        }
        Phase::Destroying => EngineState::Remains,
    }
}

fn states(sandboxes: &[SandboxBody]) -> HashMap<SandboxId, EngineState> {
    sandboxes.iter().filter_map(observed).map(|it| (it.workspace, it.state)).collect()
}

/// Returns the events between two queries.
fn changes(before: &HashMap<SandboxId, EngineState>, now: &HashMap<SandboxId, EngineState>) -> Vec<EngineEvent> {
    let removed = before.keys().filter(|workspace| !now.contains_key(workspace));
    let removed = removed.map(|workspace| EngineEvent { workspace: *workspace, kind: EngineEventKind::Removed });
    let changed = now.iter().filter_map(|(workspace, state)| {
        let was = before.get(workspace);
        if was == Some(state) {
            return None;
        }
        let kind = match state {
            EngineState::Running if was == Some(&EngineState::Paused) => EngineEventKind::Unpaused,
            EngineState::Running => EngineEventKind::Started,
            EngineState::Paused => EngineEventKind::Paused,
            EngineState::Exited(reason) => EngineEventKind::Exited(reason.clone()),
            EngineState::Created | EngineState::Remains => return None,
        };
        Some(EngineEvent { workspace: *workspace, kind })
    });
    removed.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_between_two_looks_is_an_event() {
        let (one, two, three) = (SandboxId::generate(), SandboxId::generate(), SandboxId::generate());
        let before = HashMap::from([(one, EngineState::Running), (two, EngineState::Paused)]);
        let exited = EngineState::Exited(ExitReason::Code(KILLED));
        let now = HashMap::from([(one, exited), (three, EngineState::Running)]);
        let events = changes(&before, &now);
        let has = |workspace, kind| events.contains(&EngineEvent { workspace, kind });
        assert!(has(one, EngineEventKind::Exited(ExitReason::Code(KILLED))));
        assert!(has(two, EngineEventKind::Removed) && has(three, EngineEventKind::Started));
        assert_eq!((events.len(), changes(&now, &now).len()), (3, 0));
    }
}
