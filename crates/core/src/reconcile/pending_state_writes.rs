//! Records the states that the store did not take, when it does again, if they are still true: otherwise a row could
//! stay false for good, since rows are compared with the engine by what this process knows of them.

use std::{sync::Arc, time::Duration};

use emergent_store::WorkspaceState;
use emergent_types::error_chain;
use tokio::time::interval;

use super::Reconciler;
use crate::{lifecycle::Wait, workspace::state::WorkspaceStatus};

/// The interval between two records of use.
const USE: Duration = Duration::from_secs(5);

// === impl Reconciler ===

impl Reconciler {
    /// Records the times at which workspaces were used, and end states that could not be recorded before, for the life
    /// of the service.
    pub(crate) async fn keep_recording_use(self: Arc<Self>) {
        let mut ticks = interval(USE);
        while self.tasks.goes_on(&mut ticks).await {
            self.record_again().await;
            self.recorder.record_use().await;
        }
    }

    /// Records what the store did not take before.
    async fn record_again(&self) {
        for (id, state) in self.recorder.pending() {
            let Some(entry) = self.registry.get(id) else {
                self.recorder.forget_pending(id);
                continue;
            };
            // Whoever has the guard records what becomes of it.
            let Some(mut guard) = entry.free_guard() else { continue };
            if !is_still_true(&state, guard.status()) {
                // It was left on its way there: what the engine has shows how far it came.
                self.recorder.forget_pending(id);
                drop(guard);
                self.lifecycle.look_again(&entry, Wait::No).await;
            } else if let Err(error) = self.recorder.record(&mut guard, &state).await {
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
