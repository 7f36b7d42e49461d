//! Periodic work: health requests, ends of workspaces whose time is up, and counting.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use emergent_store::{DestroyReason, Store};
use emergent_types::error_chain;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    config::CoreConfig,
    foundation::Foundation,
    lifecycle::Lifecycle,
    placement::providers::Registered,
    pool::Pool,
    quota::capacity::Capacities,
    tasks::Tasks,
    workspace::{registry::Registry, transitions::Operation},
};

/// The interval between two health requests to a provider.
const HEALTH: Duration = Duration::from_secs(30);
/// The interval between two searches for workspaces whose time is up.
const EXPIRY: Duration = Duration::from_secs(5);
/// The interval between two counts of active workspaces.
const COUNT: Duration = Duration::from_secs(15);

/// The periodic work for which no other concern is there.
pub(crate) struct Background {
    config: Arc<CoreConfig>,
    store: Store,
    registry: Arc<Registry>,
    tasks: Tasks,
    pool: Arc<Pool>,
    capacities: Arc<Capacities>,
    lifecycle: Arc<Lifecycle>,
}

// === impl Background ===

impl Background {
    pub(crate) fn new(
        base: &Foundation,
        pool: Arc<Pool>,
        capacities: Arc<Capacities>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self {
            config: Arc::clone(&base.config),
            store: base.store.clone(),
            registry: Arc::clone(&base.registry),
            tasks: base.tasks.clone(),
            pool,
            capacities,
            lifecycle,
        }
    }

    /// Asks a provider for its health at every interval, for the life of the service.
    pub(crate) async fn keep_asking(self: Arc<Self>, registered: Arc<Registered>) {
        let mut ticks = interval(HEALTH);
        while self.tasks.goes_on(&mut ticks).await {
            registered.probe().await;
        }
    }

    /// Destroys workspaces soon after their time is up, for the life of the service.
    pub(crate) async fn keep_to_expiry(self: Arc<Self>) {
        let mut ticks = interval(self.config.cleanup_interval.min(EXPIRY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.tasks.goes_on(&mut ticks).await {
            if self.config.enabled {
                self.destroy_expired().await;
            }
        }
    }

    /// Counts active workspaces and warns when they come near the limit, for the life of the service.
    pub(crate) async fn keep_counting(self: Arc<Self>) {
        let mut warned = false;
        let mut ticks = interval(COUNT);
        while self.tasks.goes_on(&mut ticks).await {
            self.pool.report();
            match self.capacities.report(warned).await {
                Ok(near) => warned = near,
                Err(error) => tracing::warn!(reason = error_chain(&error), "active workspaces could not be counted"),
            }
        }
    }

    async fn destroy_expired(&self) {
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
            self.lifecycle.operate_on(entry, Operation::Destroy(DestroyReason::Expired)).await.ok();
        }
    }
}
