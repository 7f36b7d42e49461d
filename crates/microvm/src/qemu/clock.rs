//! The frequency of the processor's time stamp counter, for guests that have no way to find out.
//!
//! An emulated `microvm` passes the host's time stamp counter on and has no other clock to measure it with: its kernel
//! would wait for a timer that never ticks. So the kernel is given the frequency.

#![expect(unsafe_code, reason = "the time stamp counter is read by an instruction of its own")]

use std::{
    arch::x86_64::_rdtsc,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// The duration of the measurement: one part in ten thousand is good enough for a clock that the host sets now and
/// then.
const MEASURED: Duration = Duration::from_millis(20);

/// Ticks of the time stamp counter in a millisecond. Blocks for [`MEASURED`] the first time.
pub(super) fn kilohertz() -> u64 {
    static MEMORY: OnceLock<u64> = OnceLock::new();
    *MEMORY.get_or_init(measure)
}

fn measure() -> u64 {
    let (before, began) = (counter(), Instant::now());
    std::thread::sleep(MEASURED);
    let (ticks, took) = (counter().saturating_sub(before), began.elapsed());
    let per_second = u128::from(ticks) * 1_000_000_000 / took.as_nanos().max(1);
    u64::try_from(per_second / 1000).unwrap_or(u64::MAX)
}

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe { _rdtsc() }
}
