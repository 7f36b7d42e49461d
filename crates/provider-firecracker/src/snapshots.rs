//! Snapshots: copies of a machine's disks, which are flushed and frozen for the copying.

use async_trait::async_trait;
use emergent_firecracker_manager::http::SnapshotRequestBody;
use emergent_provider::{ObservedSnapshot, OperationError, SnapshotSpec, Snapshots, TakeError, Taken};
use emergent_types::{SnapshotId, SnapshotStep, StepObserver};

use crate::{FirecrackerProvider, error, labels};

#[async_trait]
impl Snapshots for FirecrackerProvider {
    async fn take(&self, spec: &SnapshotSpec, observer: &dyn StepObserver) -> Result<Taken, TakeError> {
        let sandbox = self.manager.get(spec.workspace.as_uuid().into()).await;
        let sandbox =
            sandbox.map_err(|failure| error::operation_error(&*self.manager, "take a snapshot of", failure))?;
        let body = SnapshotRequestBody {
            snapshot_id: Some(spec.snapshot.as_uuid()),
            // Workspaces that begin with it may have other limits, which a machine's memory could not be given.
            memory: Some(false),
            labels: labels::of_snapshot(self.server, spec.workspace, &sandbox.labels),
        };
        let taken = self.manager.snapshot(spec.workspace.as_uuid().into(), body).await;
        let taken = taken.map_err(|failure| error::operation_error(&*self.manager, "take a snapshot of", failure))?;
        for step in [
            SnapshotStep::VolumeCreated,
            SnapshotStep::SandboxFrozen,
            SnapshotStep::FilesCopied,
            SnapshotStep::SandboxThawed,
        ] {
            observer.snapshot_taken(spec.snapshot, step);
        }
        Ok(Taken { root_bytes: taken.root_bytes, workspace_bytes: taken.workspace_bytes })
    }

    async fn delete(&self, snapshot: SnapshotId) -> Result<(), OperationError> {
        let deleted = self.manager.delete_snapshot(snapshot).await;
        deleted.map_err(|failure| error::operation_error(&*self.manager, "delete a snapshot of", failure))
    }

    async fn list_snapshots(&self) -> Result<Vec<ObservedSnapshot>, OperationError> {
        let listed = self.manager.snapshots().await;
        let listed =
            listed.map_err(|failure| error::operation_error(&*self.manager, "list the snapshots of", failure))?;
        let ours = listed.into_iter().filter_map(|snapshot| {
            let server = labels::server_of(&snapshot.labels)?;
            // The manager lists those that it has taken to the end.
            let (created_at, whole) = (snapshot.created_at, true);
            Some(ObservedSnapshot { snapshot: snapshot.snapshot_id.into(), server, created_at, whole })
        });
        Ok(ours.collect())
    }
}
