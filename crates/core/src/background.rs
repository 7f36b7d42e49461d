//! Periodic work: health requests, clean-up, counting, and recording the times at which workspaces were used.

pub(crate) mod retention;

use emergent_types::error_chain;
use std::{sync::Arc, time::Duration};

use chrono::Utc;
use emergent_store::DestroyReason;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    orchestrator::Orchestrator, placement::providers::Registered, quota::capacity::is_near, telemetry,
    workspace::transitions::Operation,
};

/// The interval between two health requests to a provider.
const HEALTH: Duration = Duration::from_secs(30);
/// The interval between two searches for workspaces whose time is up.
const EXPIRY: Duration = Duration::from_secs(5);
/// The interval between two records of use.
const USE: Duration = Duration::from_secs(5);
/// How long data that only an older release needed is kept, for servers of that release that start again meanwhile.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// How many rows of destroyed workspaces are removed at once.
const FORGET: u64 = 200;
/// The interval between two checks of how many audit rows were written.
const AUDIT: Duration = Duration::from_secs(60);
/// The number of written audit rows from which on the oldest rows are deleted between two clean-ups.
const MANY: u64 = 20_000;
/// The interval between two counts of active workspaces.
const COUNT: Duration = Duration::from_secs(15);

// === impl Orchestrator ===

impl Orchestrator {
    /// Asks a provider for its health at every interval, for the life of the service.
    pub(crate) async fn keep_asking(self: Arc<Self>, registered: Arc<Registered>) {
        let mut ticks = interval(HEALTH);
        while self.goes_on(&mut ticks).await {
            registered.probe().await;
        }
    }

    /// Destroys workspaces soon after their time is up, for the life of the service.
    pub(crate) async fn keep_to_expiry(self: Arc<Self>) {
        let mut ticks = interval(self.config.cleanup_interval.min(EXPIRY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.goes_on(&mut ticks).await {
            if self.config.enabled {
                self.destroy_expired().await;
            }
        }
    }

    /// Removes old rows, unused images and unused data of the engines at every interval, for the life of the service.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        let mut ticks = interval(self.config.cleanup_interval);
        while self.goes_on(&mut ticks).await {
            if self.config.enabled {
                self.forget_destroyed().await;
                self.remove_unused_images().await;
                self.tidy_engines().await;
                self.forget_old().await;
            }
        }
    }

    async fn tidy_engines(&self) {
        for registered in self.providers.iter() {
            let kind = registered.provider.kind();
            match registered.provider.tidy(UNUSED).await {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => tracing::info!(provider = %kind, ?removed, "removed what nobody uses any more"),
                Err(error) => {
                    tracing::debug!(provider = %kind, reason = error_chain(&error), "the engine was not tidied")
                }
            }
        }
    }

    /// Deletes the oldest audit rows of projects that have too many, between two clean-ups, once many were written; for
    /// the life of the service.
    pub(crate) async fn keep_audit_short(self: Arc<Self>) {
        let mut ticks = interval(AUDIT);
        let mut written = 0;
        while self.goes_on(&mut ticks).await {
            written += self.audit.take_written();
            if written >= MANY {
                written = 0;
                self.forget_beyond(self.config.audit.most_rows).await;
            }
        }
    }

    /// Records the times at which workspaces were used, and end states that could not be recorded before, for the life
    /// of the service.
    pub(crate) async fn keep_recording_use(self: Arc<Self>) {
        let mut ticks = interval(USE);
        while self.goes_on(&mut ticks).await {
            self.record_again().await;
            self.record_use().await;
        }
    }

    /// Counts active workspaces and warns when they come near the limit, for the life of the service.
    pub(crate) async fn keep_counting(self: Arc<Self>) {
        let mut warned = false;
        let mut ticks = interval(COUNT);
        while self.goes_on(&mut ticks).await {
            self.pool.report();
            match self.store.workspaces_active(None).await {
                Ok(active) => {
                    telemetry::active(&active);
                    let active = active.iter().map(|(_, active)| active).sum();
                    let near = is_near(active, self.config.max_concurrent, self.config.alert_threshold_pct);
                    self.warn_near_limit(active, near && !warned);
                    warned = near;
                }
                Err(error) => tracing::warn!(reason = error_chain(&error), "active workspaces could not be counted"),
            }
        }
    }

    fn warn_near_limit(&self, active: u64, near_now: bool) {
        let (limit, threshold_pct) = (self.config.max_concurrent, self.config.alert_threshold_pct);
        telemetry::capacity(active, limit, is_near(active, limit, threshold_pct));
        if near_now {
            tracing::warn!(active, limit, threshold_pct, "active workspaces come near WORKSPACE_MAX_CONCURRENT");
        }
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

    async fn destroy_expired(self: &Arc<Self>) {
        let expired = match self.store.workspaces_expired(self.store.server_id(), Utc::now()).await {
            Ok(expired) => expired,
            Err(error) => {
                tracing::warn!(reason = error_chain(&error), "expired workspaces could not be listed");
                return;
            }
        };
        for row in expired {
            let Some(entry) = self.registry.get(row.id) else { continue };
            tracing::info!(workspace = %row.id, expired_at = ?row.expires_at, "destroying an expired workspace");
            // A failure is logged where it happens; the next round tries again.
            self.operate_on(entry, Operation::Destroy(DestroyReason::Expired)).await.ok();
        }
    }

    /// Removes the rows of workspaces that were destroyed long ago, a few at a time so that no other query waits long.
    async fn forget_destroyed(&self) {
        let Some(before) = Utc::now().checked_sub_signed(self.config.destroyed_retention) else { return };
        let mut forgotten = 0;
        loop {
            match self.store.workspaces_forget(before, FORGET).await {
                Ok(gone) => {
                    forgotten += gone;
                    if gone < FORGET || self.is_going_down() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "rows of destroyed workspaces could not be removed");
                    break;
                }
            }
        }
        if forgotten > 0 {
            tracing::info!(rows = forgotten, "removed the rows of workspaces that were destroyed long ago");
        }
    }

    /// Waits for the next tick, of which the first is now; returns false when the service shuts down.
    pub(crate) async fn goes_on(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            _ = ticks.tick() => true,
            () = self.going_down.cancelled() => false,
        }
    }
}
