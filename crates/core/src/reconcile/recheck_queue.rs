//! Workspaces that a call has found not running although their rows say so. They are looked at again at once: the
//! engine's own word for it may come late, or may have been given while nobody listened.

use std::{collections::HashSet, sync::Arc};

use emergent_types::WorkspaceId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{orchestrator::Orchestrator, reconcile::Wait};

/// Which workspaces are to be looked at; never more than there are.
#[derive(Default)]
pub(crate) struct Doubts {
    of: Mutex<HashSet<WorkspaceId>>,
    raised: Notify,
}

// === impl Doubts ===

impl Doubts {
    /// A call has found a workspace not running.
    pub(crate) fn raise(&self, workspace: WorkspaceId) {
        self.of.lock().insert(workspace);
        // Is kept for one who is not waiting just now.
        self.raised.notify_one();
    }

    async fn next(&self) -> HashSet<WorkspaceId> {
        self.raised.notified().await;
        std::mem::take(&mut *self.of.lock())
    }
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Looks at doubtful workspaces again, for the life of the service.
    pub(crate) async fn keep_settling_doubts(self: Arc<Self>) {
        loop {
            let doubtful = tokio::select! {
                doubtful = self.doubts.next() => doubtful,
                () = self.going_down.cancelled() => return,
            };
            for entry in doubtful.into_iter().filter_map(|id| self.registry.get(id)) {
                let core = Arc::clone(&self);
                self.tasks.spawn(async move { core.look_again(&entry, Wait::No).await });
            }
        }
    }
}
