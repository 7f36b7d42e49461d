//! Looking after sandboxes: machines that end by themselves, lives that are over, removals that did not come to their
//! end.

use emergent_types::error_chain;
use std::sync::Arc;

use chrono::Utc;
use emergent_microvm::MachineState;

use super::{Inner, Sandboxes, entry::Entry};
use crate::record::Phase;

// === impl Sandboxes ===

impl Sandboxes {
    /// Looks after all sandboxes until the service stops.
    pub(super) fn watch(&self) {
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(inner.config.watch_interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => inner.look().await,
                    () = inner.stop.cancelled() => return,
                }
            }
        });
    }
}

// === impl Inner ===

impl Inner {
    async fn look(&self) {
        let entries: Vec<_> = self.lock_entries().values().cloned().collect();
        for entry in entries {
            // Whoever has the turn is changing it: it is looked at the next time.
            let Some(_turn) = entry.try_turn() else { continue };
            self.look_at(&entry).await;
        }
    }

    async fn look_at(&self, entry: &Arc<Entry>) {
        let record = entry.record();
        if self.entry(entry.id).is_err() {
            return;
        }
        let expired = record.expires_at.is_some_and(|at| at <= Utc::now());
        let done = match record.phase {
            Phase::Destroying => self.remove(entry).await,
            _ if expired => {
                tracing::info!(sandbox = %entry.id, "a sandbox's time is over");
                self.remove(entry).await
            }
            Phase::Ready => match self.vmm.state(&self.directory(entry)).await {
                Ok(MachineState::Gone(reason)) => self.fall_to_stopped(entry, reason.to_string()).await,
                // Whoever had it stand still has ended, or it would have the turn.
                Ok(MachineState::Frozen) => self.thaw_or_stop(entry, "it was left standing still").await,
                Ok(MachineState::Running) | Err(_) => Ok(()),
            },
            Phase::Paused | Phase::Stopped => Ok(()),
            // Nobody has its turn: whoever began this could not bring it to its end.
            Phase::Creating | Phase::Pausing | Phase::Resuming | Phase::Stopping | Phase::Starting => {
                self.settle(entry).await
            }
        };
        if let Err(error) = done {
            tracing::warn!(sandbox = %entry.id, reason = error_chain(&error), "a sandbox is not in order; it is tried again");
        }
    }
}
