//! The decision that follows from a crash. Pure: the driver carries it out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use emergent_store::RestartPolicy;

/// More crashes than this within [`WINDOW`] are too many.
const TOLERATED: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// The running time after which a server counts as recovered.
const STABLE: Duration = Duration::from_secs(60);
/// The time for which each further start is held back, once there were too many crashes.
const HELD_BACK: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// The time that the next start waits, after the first, second … start that did not get the server ready.
const UNREADY: [Duration; 6] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// How soon after a crash the end of a process that ran before it counts as the same crash: a sandbox takes all its
/// processes along, and a busy machine takes its time.
const ONE_CRASH: Duration = Duration::from_secs(10);

/// The crashes of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    crashes: VecDeque<Instant>,
    last: Option<Instant>,
    /// The time since which the server runs.
    started: Option<Instant>,
    /// The number of starts in a row that were held back.
    held_back: usize,
    /// The number of starts in a row that did not get the server ready.
    unready: usize,
}

/// The action that follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Do nothing: the end belongs to a crash that was seen before.
    Nothing,
    /// Start the server again.
    Restart,
    /// Start the server again after this time, and warn.
    RestartAfter(Duration),
    /// Leave the server as it is.
    Stay,
}

// === impl History ===

impl History {
    /// Notes that the server runs from now on.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
        self.unready = 0;
    }

    /// Decides about a server that has ended, or was given up, before it was ready; `clean`: it ended with 0.
    pub(crate) fn not_ready(&mut self, now: Instant, policy: RestartPolicy, clean: bool) -> Next {
        self.last = Some(now);
        self.started = None;
        if leaves(policy, clean) {
            return Next::Stay;
        }
        let after = UNREADY[self.unready.min(UNREADY.len() - 1)];
        self.unready += 1;
        Next::RestartAfter(after)
    }

    /// Decides about the end, by itself, of something that was started at `born`; `clean`: it ended with 0.
    pub(crate) fn ended(&mut self, now: Instant, born: Instant, policy: RestartPolicy, clean: bool) -> Next {
        if self.last.is_some_and(|last| born <= last && now.saturating_duration_since(last) < ONE_CRASH) {
            return Next::Nothing;
        }
        self.last = Some(now);
        let started = self.started.take();
        if leaves(policy, clean) {
            return Next::Stay;
        }
        if started.is_some_and(|started| now.saturating_duration_since(started) >= STABLE) {
            *self = Self { last: self.last, ..Self::default() };
        }
        self.crashes.retain(|crash| now.saturating_duration_since(*crash) < WINDOW);
        self.crashes.push_back(now);
        if self.held_back == 0 && self.crashes.len() <= TOLERATED {
            return Next::Restart;
        }
        let after = HELD_BACK[self.held_back.min(HELD_BACK.len() - 1)];
        self.held_back += 1;
        Next::RestartAfter(after)
    }

    /// Forgets all crashes, for a fresh start that somebody has asked for.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Whether a policy leaves a server that has ended as it is.
fn leaves(policy: RestartPolicy, clean: bool) -> bool {
    match policy {
        RestartPolicy::Never => true,
        RestartPolicy::OnFailure => clean,
        RestartPolicy::Always => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn crash(history: &mut History, now: &mut Instant) -> Next {
        let next = history.ended(*now, *now - SECOND, RestartPolicy::Always, false);
        if let Next::RestartAfter(after) = next {
            *now += after;
        }
        history.started(*now);
        *now += 2 * SECOND;
        next
    }

    #[test]
    fn the_fourth_crash_within_a_minute_is_held_back_and_each_further_one_longer() {
        let (mut history, mut now) = (History::default(), Instant::now());
        let after = |seconds| Next::RestartAfter(seconds * SECOND);
        let expected = [
            Next::Restart,
            Next::Restart,
            Next::Restart,
            after(5),
            after(15),
            after(45),
            after(120),
            after(300),
            after(300),
        ];
        for next in expected {
            assert_eq!(crash(&mut history, &mut now), next);
        }
        now += STABLE;
        assert_eq!(crash(&mut history, &mut now), Next::Restart);
    }

    #[test]
    fn crashes_that_are_far_apart_are_never_held_back() {
        let (mut history, mut now) = (History::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(crash(&mut history, &mut now), Next::Restart);
            now += 25 * SECOND;
        }
    }

    #[test]
    fn policies_decide_who_is_started_again() {
        let now = Instant::now();
        let next = |policy, clean| History::default().ended(now, now, policy, clean);
        assert_eq!(next(RestartPolicy::Always, true), Next::Restart);
        assert_eq!(next(RestartPolicy::OnFailure, true), Next::Stay);
        assert_eq!(next(RestartPolicy::OnFailure, false), Next::Restart);
        assert_eq!(next(RestartPolicy::Never, false), Next::Stay);
    }

    #[test]
    fn what_ran_before_a_crash_and_ends_soon_after_it_counts_once() {
        let (mut history, born) = (History::default(), Instant::now());
        let at = |seconds| born + seconds * SECOND;
        let mut end = |after, born| history.ended(at(after), born, RestartPolicy::Always, false);
        assert_eq!(end(5, born), Next::Restart);
        assert_eq!(end(6, born), Next::Nothing);
        assert_eq!(end(9, born), Next::Nothing);
        // What was started since then ends of its own, and so does what has outlived the crash for long.
        assert_eq!(end(10, at(7)), Next::Restart);
        assert_eq!(end(30, born), Next::Restart);
    }

    #[test]
    fn one_that_is_never_ready_is_held_back_longer_each_time() {
        let (mut history, mut now) = (History::default(), Instant::now());
        for seconds in [2, 5, 15, 45, 120, 300, 300] {
            // However long it took to find out.
            now += 80 * SECOND;
            assert_eq!(history.not_ready(now, RestartPolicy::Always, false), Next::RestartAfter(seconds * SECOND));
        }
        history.started(now);
        assert_eq!(history.not_ready(now, RestartPolicy::Always, false), Next::RestartAfter(2 * SECOND));
        assert_eq!(history.not_ready(now, RestartPolicy::OnFailure, true), Next::Stay);
        assert_eq!(history.not_ready(now, RestartPolicy::Never, false), Next::Stay);
    }
}
