//! Follows operations step by step: pull progress for callers, and fault points for tests of crashes.

use std::sync::Arc;

use emergent_types::{
    CreateStep, DestroyStep, Fault, PullProgress, SnapshotId, SnapshotStep, StepObserver, StopStep, WorkspaceId,
};

use crate::workspace::registry::Registry;

/// The names of all steps that the life of a workspace passes, in order.
pub fn step_names() -> impl Iterator<Item = &'static str> {
    let create = CreateStep::ALL.iter().map(|step| step.name());
    let stop = StopStep::ALL.iter().map(|step| step.name());
    let destroy = DestroyStep::ALL.iter().map(|step| step.name());
    let snapshot = SnapshotStep::ALL.iter().map(|step| step.name());
    create.chain(stop).chain(destroy).chain(snapshot)
}

/// The one observer of all operations.
pub(crate) struct Steps {
    fault: Option<Fault>,
    registry: Arc<Registry>,
}

impl Steps {
    pub(crate) fn new(fault: Option<Fault>, registry: Arc<Registry>) -> Self {
        Self { fault, registry }
    }

    /// A step of a stop is done.
    pub(crate) fn stopped(&self, workspace: WorkspaceId, step: StopStep) {
        self.pass(workspace, step.name());
    }

    fn pass(&self, workspace: WorkspaceId, step: &'static str) {
        tracing::debug!(%workspace, step, "step done");
        self.strike(step);
    }

    fn strike(&self, step: &'static str) {
        if let Some(fault) = self.fault {
            fault.strike(step);
        }
    }
}

impl StepObserver for Steps {
    fn created(&self, workspace: WorkspaceId, step: CreateStep) {
        if step == CreateStep::ImagePresent
            && let Some(entry) = self.registry.get(workspace)
        {
            entry.note_image_present();
        }
        self.pass(workspace, step.name());
    }

    fn destroyed(&self, workspace: WorkspaceId, step: DestroyStep) {
        self.pass(workspace, step.name());
    }

    fn snapshot_taken(&self, snapshot: SnapshotId, step: SnapshotStep) {
        tracing::debug!(%snapshot, step = step.name(), "step done");
        self.strike(step.name());
    }

    fn pulling(&self, workspace: WorkspaceId, progress: PullProgress) {
        if let Some(entry) = self.registry.get(workspace) {
            entry.note_pull(progress);
        }
    }
}

/// Undoing a create is no destroy: its steps are nobody's business.
pub(crate) struct Undoing;

impl StepObserver for Undoing {
    fn created(&self, _: WorkspaceId, _: CreateStep) {}
    fn destroyed(&self, _: WorkspaceId, _: DestroyStep) {}
    fn snapshot_taken(&self, _: SnapshotId, _: SnapshotStep) {}
    fn pulling(&self, _: WorkspaceId, _: PullProgress) {}
}
