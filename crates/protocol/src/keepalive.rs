//! When to send a Ping, and when a silent peer counts as lost.

use std::time::Duration;

/// The keep-alive of one connection. A Ping is due once every `interval`. If nothing arrives from
/// the peer within `timeout` after a Ping, the peer counts as lost.
///
/// ```text
///            on_timeout: Ping          on_timeout, bytes received: Rest
///   Resting ─────────────────▶ Waiting ────────────────────────────────▶ Resting
///                                 └──── on_timeout, nothing received: Lost
/// ```
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    waiting: bool,
    heard: bool,
}

/// What to do when the timer fires, and when it must fire again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveAction {
    /// Send a Ping, and set the timer to this duration.
    Ping(Duration),
    /// The peer is alive. Set the timer to this duration.
    Rest(Duration),
    /// The peer is lost. End the connection.
    Lost,
}

impl KeepAlive {
    /// Creates a keep-alive that requires a Ping once every `interval`, and waits up to `timeout`
    /// for any bytes. Set the timer to `interval` first.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, waiting: false, heard: false }
    }

    /// Call this when bytes arrive from the peer. Any bytes show that it is alive.
    pub fn on_heard(&mut self) {
        self.heard = true;
    }

    /// Call this when the timer fires.
    pub fn on_timeout(&mut self) -> KeepAliveAction {
        self.waiting = !self.waiting;
        if self.waiting {
            self.heard = false;
            KeepAliveAction::Ping(self.timeout)
        } else if self.heard {
            KeepAliveAction::Rest(self.interval.saturating_sub(self.timeout))
        } else {
            KeepAliveAction::Lost
        }
    }
}
