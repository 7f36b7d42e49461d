//! States that the store did not take, as when its disk is full. They are recorded when it does again, if they are
//! still true: otherwise a row could stay false for good, since rows are compared with the engine by what this process
//! knows of them.

use std::collections::HashMap;

use emergent_store::WorkspaceState;
use emergent_types::{WorkspaceId, error_chain};
use parking_lot::Mutex;

use crate::{orchestrator::Orchestrator, reconcile::Wait, workspace::state::WorkspaceStatus};

/// The last state of each workspace that could not be recorded.
#[derive(Default)]
pub(crate) struct Unrecorded(Mutex<HashMap<WorkspaceId, WorkspaceState>>);

// === impl Unrecorded ===

impl Unrecorded {
    pub(crate) fn note(&self, workspace: WorkspaceId, state: &WorkspaceState) {
        self.0.lock().insert(workspace, state.clone());
    }

    /// A newer state was recorded.
    pub(crate) fn forget(&self, workspace: WorkspaceId) {
        self.0.lock().remove(&workspace);
    }

    fn all(&self) -> Vec<(WorkspaceId, WorkspaceState)> {
        let states = self.0.lock();
        states.iter().map(|(id, state)| (*id, state.clone())).collect()
    }
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Records what the store did not take before.
    pub(crate) async fn record_again(&self) {
        for (id, state) in self.unrecorded.all() {
            let Some(entry) = self.registry.get(id) else {
                self.unrecorded.forget(id);
                continue;
            };
            // Whoever has the turn records what becomes of it.
            let Some(turn) = entry.free_turn() else { continue };
            if !is_still_true(&state, entry.status()) {
                // It was left on its way there: what the engine has shows how far it came.
                self.unrecorded.forget(id);
                drop(turn);
                self.look_again(&entry, Wait::No).await;
            } else if let Err(error) = self.record(id, &state).await {
                tracing::warn!(workspace = %id, reason = error_chain(&error), "a state could still not be recorded");
            }
        }
    }
}

/// Whether this is where the workspace stands. What is on its way is brought to its end by other means.
fn is_still_true(state: &WorkspaceState, status: WorkspaceStatus) -> bool {
    match (state, status) {
        (WorkspaceState::Ready, WorkspaceStatus::Ready)
        | (WorkspaceState::Paused, WorkspaceStatus::Paused(_))
        | (WorkspaceState::Stopped, WorkspaceStatus::Stopped(_)) => true,
        (WorkspaceState::Error { reason, .. }, WorkspaceStatus::Failed(failed)) => *reason == failed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use emergent_store::ErrorReason;

    use super::*;

    #[test]
    fn only_what_the_workspace_still_is_may_be_recorded_late() {
        let killed = WorkspaceState::Error { reason: ErrorReason::Killed, message: String::new() };
        assert!(is_still_true(&killed, WorkspaceStatus::Failed(ErrorReason::Killed)));
        assert!(!is_still_true(&killed, WorkspaceStatus::Ready), "it was started again");
        assert!(!is_still_true(&WorkspaceState::Stopped, WorkspaceStatus::Starting), "it is on its way");
        assert!(!is_still_true(&WorkspaceState::Destroying, WorkspaceStatus::Destroying), "the destruction records it");
    }
}
