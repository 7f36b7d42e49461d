//! Records what becomes of workspaces in their rows.

mod pending_state_writes;

use std::sync::Arc;

use emergent_store::{SessionEnd, StateKind, Store, StoreError, WorkspaceRow, WorkspaceState};
use emergent_types::{WorkspaceId, error_chain};

use self::pending_state_writes::PendingStateWrites;
use crate::workspace::{entry::WorkspaceGuard, registry::Registry, session_cache::SessionCache, state::SuspendReason};

/// The states that a workspace may have had before `destroyed`. Only `destroyed` follows upon `destroying`: an
/// operation that was under way when the destruction began does not bring the workspace back.
const NOT_DESTROYED: [StateKind; 7] = [
    StateKind::Destroying,
    StateKind::Creating,
    StateKind::Ready,
    StateKind::Paused,
    StateKind::Stopping,
    StateKind::Stopped,
    StateKind::Error,
];

/// Records the states of workspaces, the ends of their sessions, and the times at which they were used.
pub(crate) struct StateRecorder {
    store: Store,
    registry: Arc<Registry>,
    pending: PendingStateWrites,
}

// === impl StateRecorder ===

impl StateRecorder {
    pub(crate) fn new(store: Store, registry: Arc<Registry>) -> Self {
        Self { store, registry, pending: PendingStateWrites::default() }
    }

    /// Records that a workspace rests; returns whether somebody asked for the rest or it is for idleness.
    pub(crate) async fn record_rest(
        &self,
        guard: &mut WorkspaceGuard,
        state: &WorkspaceState,
    ) -> Result<SuspendReason, StoreError> {
        let row = self.record_row(guard.id, state).await?;
        Ok(row.as_ref().map_or(SuspendReason::Asked, SuspendReason::of))
    }

    /// Records a state whatever the state before, unless the workspace is destroyed, being destroyed, or another
    /// server's.
    pub(crate) async fn record(&self, guard: &mut WorkspaceGuard, state: &WorkspaceState) -> Result<(), StoreError> {
        self.record_row(guard.id, state).await.map(drop)
    }

    async fn record_row(&self, id: WorkspaceId, state: &WorkspaceState) -> Result<Option<WorkspaceRow>, StoreError> {
        let from = if *state == WorkspaceState::Destroyed { &NOT_DESTROYED[..] } else { &NOT_DESTROYED[1..] };
        let recorded = self.store.workspaces_record(id, from, state).await;
        match &recorded {
            Ok(_) => self.pending.forget(id),
            Err(_) => self.pending.note(id, state),
        }
        let recorded = recorded?;
        if recorded.is_none()
            && let Some(row) = self.store.workspaces_find(id).await?
            && row.server != self.store.server_id()
        {
            return Err(StoreError::Moved(id));
        }
        Ok(recorded)
    }

    /// Returns the last state of each workspace that the store did not take.
    pub(crate) fn pending(&self) -> Vec<(WorkspaceId, WorkspaceState)> {
        self.pending.all()
    }

    /// Gives up a state that the store did not take, since it is no longer true.
    pub(crate) fn forget_pending(&self, id: WorkspaceId) {
        self.pending.forget(id);
    }

    /// Ends the open session of a workspace, if there is one.
    pub(crate) async fn end_session(&self, guard: &mut WorkspaceGuard, reason: SessionEnd) -> Result<(), StoreError> {
        let mut known = guard.attached.lock().await;
        self.store.sessions_end(guard.id, None, reason).await?;
        *known = SessionCache::Free;
        Ok(())
    }

    /// Records the times of the last calls that are not recorded yet.
    pub(crate) async fn record_use(&self) {
        let entries = self.registry.all();
        let used = entries.iter().filter_map(|entry| Some((entry.id, entry.take_use()?))).collect::<Vec<_>>();
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.store.workspaces_touch(&used).await {
            tracing::warn!(reason = error_chain(&error), "use of workspaces could not be recorded");
        }
    }
}
