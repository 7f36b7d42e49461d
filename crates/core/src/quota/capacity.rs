//! The capacity in use and its limits: of the whole installation, and of one project.

use emergent_store::{ProjectId, Quota, QuotaUse};

use crate::{LookupError, orchestrator::Orchestrator};

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
pub(crate) fn is_near(active: u64, limit: u32, threshold_pct: u8) -> bool {
    active > 0 && active * 100 >= u64::from(limit) * u64::from(threshold_pct)
}

// === impl Orchestrator ===

impl Orchestrator {
    pub(crate) async fn capacity(&self, project: ProjectId, of_all: bool) -> Result<Capacity, LookupError> {
        self.check_enabled()?;
        let seen = (!of_all).then_some(project);
        let active = self.store.workspaces_active(seen).await?.iter().map(|(_, active)| active).sum();
        let (quota, used) = self.store.projects_quota(project).await?;
        let (limit, threshold_pct) = (self.config.max_concurrent, self.config.alert_threshold_pct);
        let near_limit = is_near(active, limit, threshold_pct);
        Ok(Capacity { active, limit, threshold_pct, near_limit, quota, used })
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
