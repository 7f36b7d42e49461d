//! The exclusive right to change a workspace. Every function that changes a workspace's phase, row or sandbox takes the
//! guard, so that one operation comes after the other.

use std::{ops::Deref, sync::Arc};

use emergent_guest_client::Guest;
use emergent_provider::ProviderKind;
use tokio::sync::OwnedMutexGuard;

use super::{Entry, RuntimePhase};
use crate::workspace::state::SuspendReason;

/// The right to change one workspace, held by at most one task. Dereferences to the workspace's entry.
pub(crate) struct WorkspaceGuard {
    entry: Arc<Entry>,
    _changing: OwnedMutexGuard<()>,
}

// === impl WorkspaceGuard ===

impl WorkspaceGuard {
    pub(super) async fn lock(entry: Arc<Entry>) -> Self {
        let changing = Arc::clone(&entry.changing).lock_owned().await;
        Self { entry, _changing: changing }
    }

    pub(super) fn try_lock(entry: Arc<Entry>) -> Option<Self> {
        let changing = Arc::clone(&entry.changing).try_lock_owned().ok()?;
        Some(Self { entry, _changing: changing })
    }

    /// Sets the provider that makes the workspace.
    pub(crate) fn set_provider(&mut self, provider: ProviderKind) {
        *self.entry.provider.lock() = provider;
    }

    /// Leaves `ready` for rest; returns the guest, which stays open. `None` where the workspace is not ready, or where
    /// the rest is for idleness and somebody uses the workspace; nothing was changed then.
    pub(crate) fn go_to_rest(
        &mut self,
        rest: SuspendReason,
        into: impl FnOnce(Guest) -> RuntimePhase,
    ) -> Option<Guest> {
        let mut left = None;
        self.entry.phase.send_if_modified(|phase| {
            let RuntimePhase::Ready { guest } = &*phase else { return false };
            // Not only while a call is under way: one that has come and gone may have started a process.
            if rest == SuspendReason::Idle && !self.entry.activity.is_unused() {
                return false;
            }
            let guest = guest.clone();
            left = Some(guest.clone());
            *phase = into(guest);
            true
        });
        left
    }

    /// Changes to another phase. Closes the guest of the phase before unless the new phase keeps it.
    pub(crate) fn set_phase(&mut self, phase: RuntimePhase) {
        let keeps_guest = phase.guest().is_some();
        if matches!(phase, RuntimePhase::Ready { .. }) {
            self.entry.activity.note();
        }
        let before = self.entry.phase.send_replace(phase);
        if let Some(guest) = before.guest().filter(|_| !keeps_guest) {
            guest.close();
        }
    }

    /// Notes that the create has ended, with or without success, and that the row says so.
    pub(crate) fn note_made(&mut self) {
        self.entry.made.cancel();
    }
}

impl Deref for WorkspaceGuard {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::lease::tests::{entry, row};

    #[tokio::test]
    async fn at_most_one_task_has_the_right_to_change_a_workspace() {
        let entry = entry(&row());
        let guard = entry.guard().await;
        assert!(entry.free_guard().is_none());
        drop(guard);
        assert!(entry.free_guard().is_some());
    }
}
