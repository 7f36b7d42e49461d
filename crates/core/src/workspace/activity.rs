//! Whether a workspace is used: how many calls are under way, and since when there is none.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use emergent_store::IdlePolicy;
use parking_lot::Mutex;

/// The use of one workspace: the calls under way, the time of its last use, and its idle policy.
pub(crate) struct Activity {
    calls: AtomicUsize,
    quiet: Mutex<Quiet>,
}

struct Quiet {
    policy: IdlePolicy,
    /// The time at which the workspace was last seen to be used.
    since: Instant,
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new(policy: IdlePolicy) -> Self {
        Self { calls: AtomicUsize::new(0), quiet: Mutex::new(Quiet { policy, since: Instant::now() }) }
    }

    /// Returns the idle policy that was set last.
    pub(crate) fn policy(&self) -> IdlePolicy {
        self.quiet.lock().policy
    }

    pub(crate) fn set_policy(&self, policy: IdlePolicy) {
        self.quiet.lock().policy = policy;
    }

    /// Returns how long the workspace has been without calls; zero while calls are under way.
    pub(crate) fn quiet_for(&self) -> Duration {
        if self.is_called() {
            return Duration::ZERO;
        }
        self.quiet.lock().since.elapsed()
    }

    /// Returns whether the workspace has been without calls for as long as its idle policy says.
    pub(crate) fn is_unused(&self) -> bool {
        self.quiet_for() >= self.policy().after
    }

    fn is_called(&self) -> bool {
        self.calls.load(Ordering::Acquire) > 0
    }

    /// Sets the time of the last use to now.
    pub(crate) fn note(&self) {
        self.quiet.lock().since = Instant::now();
    }

    /// Sets the time of the last use to `ago` before now.
    pub(crate) fn note_ago(&self, ago: Duration) {
        let mut quiet = self.quiet.lock();
        quiet.since = Instant::now().checked_sub(ago).unwrap_or(quiet.since);
    }

    /// Counts a call that begins.
    pub(crate) fn begin(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a call that ends. Sets the time of the last use before the call is taken off, so that nobody sees an old
    /// time without calls.
    pub(crate) fn end(&self) {
        self.note();
        self.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use emergent_store::IdleAction;

    use super::*;

    fn quiet(after: Duration, ago: Duration) -> Activity {
        let activity = Activity::new(IdlePolicy { action: IdleAction::Pause, after });
        activity.note_ago(ago);
        activity
    }

    #[test]
    fn a_workspace_is_unused_after_its_time_without_calls() {
        assert!(!quiet(Duration::from_secs(60), Duration::from_secs(59)).is_unused());
        assert!(quiet(Duration::from_secs(60), Duration::from_secs(60)).is_unused());
    }

    #[test]
    fn a_call_under_way_and_one_that_has_come_and_gone_are_use() {
        let activity = quiet(Duration::from_secs(60), Duration::from_secs(61));
        activity.begin();
        assert!(!activity.is_unused());
        activity.end();
        assert!(!activity.is_unused());
    }
}
