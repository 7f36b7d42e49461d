//! The capacity in use and its limits: of the whole installation, and of one project.

use emergent_store::{ProjectId, Quota, QuotaUse, Store, StoreError};

use crate::{
    telemetry,
    workspace::lookup::{Lookup, LookupError},
};

/// The capacity in use and its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// The number of agent workspaces that are creating, ready or paused, on all servers: of all projects, or of the
    /// project in the query.
    pub active: u64,
    /// The greatest number of such workspaces (`WORKSPACE_MAX_CONCURRENT`).
    pub limit: u32,
    /// The share of the limit, in percent, from which on [`near_limit`](Self::near_limit) is true.
    pub threshold_pct: u8,
    /// Whether the threshold is reached.
    pub near_limit: bool,
    /// The project's quota.
    pub quota: Quota,
    /// The part of the quota that the project uses.
    pub used: QuotaUse,
}

/// Returns whether this number of workspaces has reached the threshold; never true for 0.
fn is_near(active: u64, limit: u32, threshold_pct: u8) -> bool {
    active > 0 && active * 100 >= u64::from(limit) * u64::from(threshold_pct)
}

/// Counts the capacity in use.
pub(crate) struct Capacities {
    store: Store,
    lookup: Lookup,
    limit: u32,
    threshold_pct: u8,
}

// === impl Capacities ===

impl Capacities {
    /// Makes the counter; `limit` is the greatest number of agent workspaces, and `threshold_pct` the share of the
    /// limit from which on the log warns.
    pub(crate) fn new(store: Store, lookup: Lookup, limit: u32, threshold_pct: u8) -> Self {
        Self { store, lookup, limit, threshold_pct }
    }

    /// Returns the capacity in use and its limits: of one project and, with `of_all`, of the whole installation.
    pub(crate) async fn capacity(&self, project: ProjectId, of_all: bool) -> Result<Capacity, LookupError> {
        self.lookup.check_enabled()?;
        let seen = (!of_all).then_some(project);
        let active = self.store.workspaces_active(seen).await?.iter().map(|(_, active)| active).sum();
        let (quota, used) = self.store.projects_quota(project).await?;
        let (limit, threshold_pct) = (self.limit, self.threshold_pct);
        let near_limit = is_near(active, limit, threshold_pct);
        Ok(Capacity { active, limit, threshold_pct, near_limit, quota, used })
    }

    /// Reports how many workspaces are active to the metrics; returns whether they come near the limit. Warns of that
    /// unless `warned` says that the log has done so.
    pub(crate) async fn report(&self, warned: bool) -> Result<bool, StoreError> {
        let active = self.store.workspaces_active(None).await?;
        telemetry::active(&active);
        let active = active.iter().map(|(_, active)| active).sum();
        let (limit, threshold_pct) = (self.limit, self.threshold_pct);
        let near = is_near(active, limit, threshold_pct);
        telemetry::capacity(active, limit, near);
        if near && !warned {
            tracing::warn!(active, limit, threshold_pct, "active workspaces come near WORKSPACE_MAX_CONCURRENT");
        }
        Ok(near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_counts_from_the_first_workspace_on() {
        for (active, limit, expected) in [(0, 1, false), (7, 10, false), (8, 10, true), (1, 1, true), (12, 10, true)] {
            assert_eq!(is_near(active, limit, 80), expected, "{active} of {limit}");
        }
    }
}
