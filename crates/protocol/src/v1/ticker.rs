//! When to send a Tick.

use std::time::Duration;

/// Decides when a Tick is due: as soon as nothing was sent for an interval. Browsers cannot see Pings,
/// so a client judges by the frames that arrive whether its node is alive.
///
/// Times count from any moment, the same for all calls.
#[derive(Debug)]
pub struct Ticker {
    interval: Duration,
    due: Duration,
}

impl Ticker {
    /// Creates the ticker of a connection to which a frame is sent `now`, the Welcome.
    pub fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, due: now.saturating_add(interval) }
    }

    /// Call this when a frame is sent, including a Tick.
    pub fn on_sent(&mut self, now: Duration) {
        self.due = now.saturating_add(self.interval);
    }

    /// Returns how long to wait until a Tick is due. Zero: send it now.
    pub fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }
}
