//! The clocks: one that all processes of a machine share, and the CPU time of this one.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC: the same moment is the same number in all processes of a machine.
pub(crate) type Nanos = u64;

pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const MILLISECOND: Nanos = 1_000_000;

/// A length of time in nanoseconds.
pub(crate) fn nanos(time: Duration) -> Nanos {
    time.as_nanos() as Nanos
}

/// Now.
pub(crate) fn now() -> Nanos {
    read(ClockId::Monotonic)
}

/// CPU time that this process has used, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    read(ClockId::ProcessCPUTime) as f64 / SECOND as f64
}

/// Seconds from one moment to another, which may be before it.
pub(crate) fn since(at: Nanos, start: Nanos) -> f64 {
    (at as f64 - start as f64) / SECOND as f64
}

fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    // Neither clock is ever negative.
    time.tv_sec as Nanos * SECOND + time.tv_nsec as Nanos
}
