//! States that the store did not take, as when its disk is full.

use std::collections::HashMap;

use emergent_store::WorkspaceState;
use emergent_types::WorkspaceId;
use parking_lot::Mutex;

/// The last state of each workspace that could not be recorded.
#[derive(Default)]
pub(super) struct PendingStateWrites(Mutex<HashMap<WorkspaceId, WorkspaceState>>);

// === impl PendingStateWrites ===

impl PendingStateWrites {
    pub(super) fn note(&self, workspace: WorkspaceId, state: &WorkspaceState) {
        self.0.lock().insert(workspace, state.clone());
    }

    /// A newer state was recorded.
    pub(super) fn forget(&self, workspace: WorkspaceId) {
        self.0.lock().remove(&workspace);
    }

    pub(super) fn all(&self) -> Vec<(WorkspaceId, WorkspaceState)> {
        let states = self.0.lock();
        states.iter().map(|(id, state)| (*id, state.clone())).collect()
    }
}
