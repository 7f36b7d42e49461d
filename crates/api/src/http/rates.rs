//! The limits on the rate of a project's calls.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use emergent_core::ProjectId;
use parking_lot::Mutex;

use crate::http::problem::{ProblemKind, Refusal};

/// The rate at which one project may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls in a second, on average; above 0.
    pub per_second: u32,
    /// Calls that may come at once after a pause; above 0.
    pub burst: u32,
}

/// Counts the calls of each project.
pub(crate) struct Rates {
    limit: Option<RateLimit>,
    /// The time up to which the calls of a project have used its rate, which lies ahead of now by the burst at most.
    used_until: Mutex<HashMap<ProjectId, Instant>>,
}

/// Marks a request that is a part of one which was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted;

// === impl Rates ===

impl Rates {
    /// No limit where there is `None`.
    pub(crate) fn new(limit: Option<RateLimit>) -> Self {
        Self { limit, used_until: Mutex::default() }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// A problem that says when to try again.
    pub(crate) fn admit(&self, project: ProjectId) -> Result<(), Refusal> {
        let Some(limit) = self.limit else { return Ok(()) };
        self.admit_at(Instant::now(), limit, project).map_err(|wait| {
            let RateLimit { per_second, burst } = limit;
            let detail = format!(
                "the project may make {per_second} calls a second, {burst} at once after a pause, and has made more; try \
                 again later, or ask the operator to raise WORKSPACE_RATE_LIMIT and WORKSPACE_RATE_BURST"
            );
            Refusal::new(ProblemKind::RateLimited, detail).retry_after(wait.as_secs() + 1)
        })
    }

    fn admit_at(&self, now: Instant, limit: RateLimit, project: ProjectId) -> Result<(), Duration> {
        let one = Duration::from_secs(1) / limit.per_second;
        let mut all = self.used_until.lock();
        let used_until = all.entry(project).or_insert(now);
        let next = (*used_until).max(now) + one;
        let ahead = next.saturating_duration_since(now);
        match ahead.checked_sub(one * limit.burst) {
            Some(wait) if !wait.is_zero() => Err(wait),
            Some(_) | None => {
                *used_until = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_may_call_in_bursts_and_no_more_often_than_its_rate() {
        let (limit, rates) = (RateLimit { per_second: 10, burst: 5 }, Rates::new(None));
        let (project, other) = (ProjectId::generate(), ProjectId::generate());
        let start = Instant::now();
        let admitted = |project, at_ms| {
            let at = start + Duration::from_millis(at_ms);
            (0..100).filter(|_| rates.admit_at(at, limit, project).is_ok()).count()
        };
        assert_eq!(admitted(project, 0), 5, "a burst");
        assert_eq!(rates.admit_at(start, limit, project), Err(Duration::from_millis(100)));
        assert_eq!(admitted(other, 0), 5, "another project is not held back");
        assert_eq!(admitted(project, 200), 2, "what two tenths of a second are good for");
        assert_eq!(admitted(project, 60_000), 5, "a pause saves no more than a burst");
    }
}
