//! What the operator decides about the audit.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept of what was done and used, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditConfig {
    /// How much of a call's arguments is kept (`WORKSPACE_AUDIT_ARGUMENTS`).
    pub arguments: ArgumentLevel,
    /// How long rows are kept (`WORKSPACE_AUDIT_RETENTION_DAYS`).
    pub retention: Duration,
    /// How many rows of each project are kept (`WORKSPACE_AUDIT_MAX_ROWS`).
    pub most_rows: u64,
    /// How often each workspace's use is sampled (`WORKSPACE_USAGE_INTERVAL_SEC`).
    pub usage_interval: Duration,
    /// How long samples are kept (`WORKSPACE_USAGE_RETENTION_DAYS`).
    pub usage_retention: Duration,
}

/// How much of a call's arguments is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArgumentLevel {
    /// Nothing.
    None,
    /// Names of programs and paths, and lengths. A secret in a command line or a search is not among it.
    Names,
    /// Besides, how command lines and searches begin, with whatever callers have written into them.
    Commands,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            arguments: ArgumentLevel::Names,
            retention: 90 * DAY,
            most_rows: 1_000_000,
            usage_interval: Duration::from_secs(60),
            usage_retention: 14 * DAY,
        }
    }
}
