//! Workspaces that a call has found not running although their rows say so. They are looked at again at once: the
//! engine's own word for it may come late, or may have been given while nobody listened.

use std::collections::HashSet;

use emergent_types::WorkspaceId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The queue of workspaces to reconcile; each workspace is in it at most once.
#[derive(Default)]
pub(crate) struct RecheckQueue {
    of: Mutex<HashSet<WorkspaceId>>,
    raised: Notify,
}

// === impl RecheckQueue ===

impl RecheckQueue {
    /// A call has found a workspace not running.
    pub(crate) fn raise(&self, workspace: WorkspaceId) {
        self.of.lock().insert(workspace);
        // Is kept for one who is not waiting just now.
        self.raised.notify_one();
    }

    /// Waits until there are such workspaces, and takes them.
    pub(crate) async fn next(&self) -> HashSet<WorkspaceId> {
        self.raised.notified().await;
        std::mem::take(&mut *self.of.lock())
    }
}
