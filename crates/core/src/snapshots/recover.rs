//! Makes the rows of snapshots and the engine agree, after a crash and after the engine was away.

use std::{collections::HashSet, sync::Arc};

use chrono::Utc;
use emergent_provider::{ObservedSnapshot, OperationError, ProviderKind};
use emergent_store::{SnapshotRow, SnapshotState, SnapshotStateKind};
use emergent_types::{SnapshotId, error_chain};

use super::{SnapshotError, Snapshots, reconcile_action::SnapshotReconcileAction};
use crate::{
    leftovers::Inventory,
    lifecycle::{TransitionError, Wait},
    placement::providers::Registered,
};

/// The message of a snapshot whose taking was cut short by the end of the server or the engine.
const CUT_SHORT: &str = "the server or the engine was stopped while this snapshot was being taken; take it again";
const LOST: &str = "the engine no longer has this snapshot: something other than this server removed it; delete it";

// === impl Snapshots ===

impl Snapshots {
    /// Makes all rows of a provider's snapshots agree with its engine, and removes snapshots without a row.
    ///
    /// # Errors
    /// When the engine cannot say what it has; nothing was changed then.
    pub(crate) async fn recover(&self, registered: &Arc<Registered>) -> Result<(), OperationError> {
        if let Err(error) = self.lease.ensure().await {
            tracing::warn!(reason = error_chain(&error), "snapshots are left alone");
            return Ok(());
        }
        let asked_at = Utc::now();
        // Whatever server made it: what was taken over still carries its maker's label.
        let observed = registered.provider.list_snapshots().await?;
        // After the engine was asked: what is made meanwhile has a row, and no row is missed.
        let rows = match self.store.snapshots_of(self.store.server_id()).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(reason = error_chain(&error), "the rows of snapshots could not be read");
                return Ok(());
            }
        };
        let known = rows.iter().map(|row| row.new.id).collect::<HashSet<_>>();
        let present = observed.iter().map(|observed| observed.snapshot).collect::<HashSet<_>>();
        let whole = observed.iter().filter(|observed| observed.whole).map(|observed| observed.snapshot);
        let whole = whole.collect::<HashSet<_>>();
        // What was taken while the engine was listing says nothing against its row.
        let settled = |row: &&SnapshotRow| row.ready_at.is_none_or(|ready_at| ready_at < asked_at);
        let ours = rows.iter().filter(|row| row.new.provider == registered.provider.kind());
        for row in ours.filter(settled) {
            // One that is ready and not whole is lost; of any other, whatever is left goes.
            let in_engine = if row.state.word() == SnapshotStateKind::Ready { &whole } else { &present };
            if let Err(error) = self.recover_snapshot(row, in_engine.contains(&row.new.id)).await {
                tracing::warn!(snapshot = %row.new.id, reason = error_chain(&error), "snapshot could not be reconciled");
            }
        }
        let seen = present.iter().map(|snapshot| snapshot.as_uuid()).collect();
        self.leftovers.forget_gone(registered.provider.kind(), Inventory::Snapshots, &seen).await;
        let own = observed.iter().filter(|observed| observed.server == self.store.server_id());
        for orphan in own.filter(|observed| !known.contains(&observed.snapshot)) {
            match self.store.snapshots_find(orphan.snapshot).await {
                // Another server keeps it now, whoever has made it.
                Ok(Some(_)) => {}
                Ok(None) => self.remove_orphan_snapshot(registered, orphan).await,
                Err(error) => tracing::warn!(reason = error_chain(&error), "the row of a snapshot could not be read"),
            }
        }
        Ok(())
    }

    async fn recover_snapshot(&self, row: &SnapshotRow, in_engine: bool) -> Result<(), SnapshotError> {
        let id = row.new.id;
        // Whoever has it is bringing it to where it belongs.
        let Ok(_alone) = self.locks.of(id).try_write_owned() else { return Ok(()) };
        // It may have got there since it was listed.
        let Some(row) = self.store.snapshots_find(id).await?.filter(|now| now.state == row.state) else {
            return Ok(());
        };
        let action = SnapshotReconcileAction::choose(row.state.word(), row.new.temporary, in_engine);
        if action != SnapshotReconcileAction::Agree {
            tracing::info!(snapshot = %id, state = %row.state.word(), in_engine, ?action, "reconciling a snapshot");
        }
        match action {
            SnapshotReconcileAction::Agree => Ok(()),
            SnapshotReconcileAction::Abandon => {
                self.thaw_source(&row).await;
                self.abandon_snapshot(row.new.provider, id, CUT_SHORT.to_owned()).await
            }
            SnapshotReconcileAction::FinishDelete => self.remove_snapshot(&row).await,
            SnapshotReconcileAction::Clear => self.clear_snapshot(row.new.provider, id).await,
            SnapshotReconcileAction::Lost => {
                self.store.snapshots_record(id, &SnapshotState::Error { message: LOST.to_owned() }).await?;
                Ok(())
            }
        }
    }

    /// Lets the workspace of a snapshot that was cut short go on, if the workspace is still frozen.
    async fn thaw_source(&self, row: &SnapshotRow) {
        if let Some(entry) = self.registry.get(row.new.workspace) {
            self.lifecycle.look_again(&entry, Wait::ForGuard).await;
        }
    }

    /// Removes the remains of a snapshot that was not taken, and records the reason in its row.
    pub(super) async fn abandon_snapshot(
        &self,
        provider: ProviderKind,
        id: SnapshotId,
        message: String,
    ) -> Result<(), SnapshotError> {
        let cleared = self.clear_snapshot(provider, id).await;
        // Whatever is left is found again: the engine has something of a snapshot in error.
        self.store.snapshots_record(id, &SnapshotState::Error { message }).await?;
        cleared
    }

    async fn clear_snapshot(&self, provider: ProviderKind, id: SnapshotId) -> Result<(), SnapshotError> {
        let registered = self.providers.get(provider).ok_or(TransitionError::NoProvider(provider))?;
        registered.provider.delete(id).await.map_err(SnapshotError::Delete)
    }

    /// Handles a snapshot of this server without a row: puts a whole one aside, and removes an unusable one. Leaves a
    /// snapshot alone that is so young that its row could be on its way.
    async fn remove_orphan_snapshot(&self, registered: &Registered, orphan: &ObservedSnapshot) {
        let age = Utc::now() - orphan.created_at;
        if orphan.created_at >= self.started_at && age <= self.config.orphan_grace {
            return;
        }
        if orphan.whole {
            return self.leftovers.put_snapshot_aside(registered, orphan).await;
        }
        match registered.provider.delete(orphan.snapshot).await {
            Ok(()) => tracing::warn!(snapshot = %orphan.snapshot, "removed a snapshot that no row knows"),
            Err(error) => {
                tracing::warn!(snapshot = %orphan.snapshot, reason = error_chain(&error), "an orphan could not be removed");
            }
        }
    }
}
