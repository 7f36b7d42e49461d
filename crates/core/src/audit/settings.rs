//! The operator's settings for the audit and for usage samples.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The content of audit rows and usage samples, and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditConfig {
    /// The level of detail at which a call's arguments are kept (`WORKSPACE_AUDIT_ARGUMENTS`).
    pub arguments: ArgumentLevel,
    /// The time for which audit rows are kept (`WORKSPACE_AUDIT_RETENTION_DAYS`).
    pub retention: Duration,
    /// The number of audit rows of each project that are kept (`WORKSPACE_AUDIT_MAX_ROWS`).
    pub most_rows: u64,
    /// The interval at which each workspace's use is sampled (`WORKSPACE_USAGE_INTERVAL_SEC`).
    pub usage_interval: Duration,
    /// The time for which usage samples are kept (`WORKSPACE_USAGE_RETENTION_DAYS`).
    pub usage_retention: Duration,
}

/// The level of detail at which a call's arguments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArgumentLevel {
    /// No arguments.
    None,
    /// Names of programs, paths, and lengths; without secrets in command lines or searches.
    Names,
    /// In addition to [`Names`](Self::Names), the beginnings of command lines and searches, with everything that
    /// callers have written there.
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
