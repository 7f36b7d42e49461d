//! Checked figures from a guest's usage report. Every figure comes from inside the sandbox and may be made up; none is
//! taken for more than the workspace's limits allow.

use std::time::Duration;

use emergent_guest_proto::Usage;
use emergent_types::ResourceLimits;

/// The factor by which a measurement may exceed the limit, for inexact clocks and bursts.
const TOLERANCE: f64 = 1.1;
/// The upper bound of bytes on a workspace's disk: 1 PiB, more than any workspace has.
const MOST_DISK: u64 = 1 << 50;

/// The counters in the previous sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) cpu_ms: u64,
    pub(super) uptime_ms: u64,
}

/// The checked figures of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) memory_bytes: u64,
    pub(super) disk_bytes: Option<u64>,
    pub(super) processes: u64,
}

/// Reads a sample. The sample stands for the time since the previous one, at most `interval`: usage before that is not
/// known when samples are missing. The first sample stands for no time.
pub(super) fn sanitize_sample(
    said: &Usage,
    before: Option<(Before, Duration)>,
    interval: Duration,
    limits: &ResourceLimits,
) -> Figures {
    let (elapsed, cpu_ms) = match before {
        None => (Duration::ZERO, 0),
        Some((before, elapsed)) => {
            // Another boot counts from nothing again.
            let restarted = said.uptime_ms < before.uptime_ms;
            let since = if restarted { 0 } else { before.cpu_ms };
            (elapsed, said.cpu_ms.unwrap_or(0).saturating_sub(since))
        }
    };
    let possible = elapsed.as_secs_f64() * limits.cpu * TOLERANCE;
    Figures {
        seconds: elapsed.min(interval.mul_f64(TOLERANCE)).as_secs_f64(),
        cpu_seconds: Duration::from_millis(cpu_ms).as_secs_f64().min(possible),
        memory_bytes: said.memory_bytes.unwrap_or(0).min(limits.memory_bytes),
        disk_bytes: said.workspace_bytes.map(|bytes| {
            let volumes = said.volume_bytes.unwrap_or(0);
            bytes.saturating_add(volumes).min(MOST_DISK)
        }),
        processes: said.processes.unwrap_or(0).min(limits.pids.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ResourceLimits = ResourceLimits { cpu: 2.0, memory_bytes: 100, disk_bytes: 1_000, pids: 10 };
    const MINUTE: Duration = Duration::from_secs(60);

    fn said(cpu_ms: u64, uptime_ms: u64) -> Usage {
        Usage { cpu_ms: Some(cpu_ms), memory_bytes: Some(70), uptime_ms, ..Usage::default() }
    }

    #[test]
    fn a_sample_stands_for_what_was_used_since_the_one_before() {
        let before = Before { cpu_ms: 5_000, uptime_ms: 10_000 };
        let read = sanitize_sample(&said(35_000, 70_000), Some((before, MINUTE)), MINUTE, &LIMITS);
        assert_eq!((read.seconds, read.cpu_seconds, read.memory_bytes), (60.0, 30.0, 70));
        let first = sanitize_sample(&said(35_000, 70_000), None, MINUTE, &LIMITS);
        assert_eq!((first.seconds, first.cpu_seconds), (0.0, 0.0));
    }

    #[test]
    fn a_restart_begins_to_count_again_and_a_gap_is_not_made_up() {
        let before = Before { cpu_ms: 50_000, uptime_ms: 100_000 };
        let read = sanitize_sample(&said(4_000, 9_000), Some((before, 10 * MINUTE)), MINUTE, &LIMITS);
        assert_eq!((read.seconds, read.cpu_seconds), (66.0, 4.0));
    }

    #[test]
    fn the_files_in_other_volumes_count_too() {
        let said = Usage { workspace_bytes: Some(5), volume_bytes: Some(7), ..Usage::default() };
        assert_eq!(sanitize_sample(&said, None, MINUTE, &LIMITS).disk_bytes, Some(12));
    }

    #[test]
    fn no_figure_is_taken_for_more_than_the_limits_allow() {
        let most = Usage {
            cpu_ms: Some(u64::MAX),
            memory_bytes: Some(u64::MAX),
            processes: Some(u64::MAX),
            workspace_bytes: Some(u64::MAX),
            uptime_ms: u64::MAX,
            ..Usage::default()
        };
        let before = Before { cpu_ms: 0, uptime_ms: 0 };
        let read = sanitize_sample(&most, Some((before, MINUTE)), MINUTE, &LIMITS);
        assert!((read.cpu_seconds - 132.0).abs() < 1e-9, "{read:?}");
        assert_eq!((read.memory_bytes, read.processes, read.disk_bytes), (100, 10, Some(MOST_DISK)));
        let backwards = Before { cpu_ms: u64::MAX, uptime_ms: 0 };
        assert_eq!(sanitize_sample(&said(0, 1), Some((backwards, MINUTE)), MINUTE, &LIMITS).cpu_seconds, 0.0);
    }
}
