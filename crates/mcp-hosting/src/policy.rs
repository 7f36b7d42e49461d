//! What follows from a crash. Pure: the driver carries it out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use emergent_store::RestartPolicy;

/// More crashes than this within [`WINDOW`] are too many.
const TOLERATED: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Whoever ran for so long has recovered.
const STABLE: Duration = Duration::from_secs(60);
/// How long each further start is held back, once there were too many crashes.
const HELD_BACK: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// Ends so close to each other have one cause: a sandbox takes all its processes along.
const ONE_CRASH: Duration = Duration::from_millis(500);

/// The crashes of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    crashes: VecDeque<Instant>,
    last: Option<Instant>,
    started: Option<Instant>,
    /// How many starts were held back in a row.
    held_back: usize,
}

/// What to do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It belongs to one that was seen before.
    Nothing,
    /// Start it again.
    Restart,
    /// Start it again after so long, and warn.
    RestartAfter(Duration),
    /// Leave it.
    Stay,
}

// === impl History ===

impl History {
    /// It runs from now on.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// It has ended by itself; `clean`: with 0.
    pub(crate) fn ended(&mut self, now: Instant, policy: RestartPolicy, clean: bool) -> Next {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < ONE_CRASH) {
            return Next::Nothing;
        }
        self.last = Some(now);
        match policy {
            RestartPolicy::Never => return Next::Stay,
            RestartPolicy::OnFailure if clean => return Next::Stay,
            RestartPolicy::OnFailure | RestartPolicy::Always => {}
        }
        if self.started.is_some_and(|started| now.saturating_duration_since(started) >= STABLE) {
            *self = Self { last: self.last, started: self.started, ..Self::default() };
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

    /// Somebody has asked for a fresh start.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn crash(history: &mut History, now: &mut Instant) -> Next {
        let next = history.ended(*now, RestartPolicy::Always, false);
        if let Next::RestartAfter(after) = next {
            *now += after;
        }
        history.started(*now);
        *now += SECOND;
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
        let next = |policy, clean| History::default().ended(now, policy, clean);
        assert_eq!(next(RestartPolicy::Always, true), Next::Restart);
        assert_eq!(next(RestartPolicy::OnFailure, true), Next::Stay);
        assert_eq!(next(RestartPolicy::OnFailure, false), Next::Restart);
        assert_eq!(next(RestartPolicy::Never, false), Next::Stay);
    }

    #[test]
    fn what_ends_together_is_one_crash() {
        let (mut history, now) = (History::default(), Instant::now());
        assert_eq!(history.ended(now, RestartPolicy::Always, false), Next::Restart);
        assert_eq!(history.ended(now, RestartPolicy::Always, false), Next::Nothing);
    }
}
