//! Compares workspaces again that a call has found not running.

use std::sync::Arc;

use super::Reconciler;
use crate::lifecycle::Wait;

// === impl Reconciler ===

impl Reconciler {
    /// Compares doubtful workspaces with the engine, for the life of the service.
    pub(crate) async fn keep_rechecking(self: Arc<Self>) {
        while let Some(doubtful) = self.tasks.until_going_down(self.recheck.next()).await {
            for entry in doubtful.into_iter().filter_map(|id| self.registry.get(id)) {
                let lifecycle = Arc::clone(&self.lifecycle);
                self.tasks.spawn(async move { lifecycle.look_again(&entry, Wait::No).await });
            }
        }
    }
}
