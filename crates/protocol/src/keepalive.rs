//! When to ping, and when to give a silent peer up.

use std::time::Duration;

/// One connection's keep-alive: a Ping every `interval`; a peer from which nothing at all came within
/// `timeout` after one is lost.
///
/// ```text
///            on_timeout: Ping              on_timeout, heard since: Rest
///   Resting ─────────────────▶ Waiting ─────────────────────────────────▶ Resting
///                                 └──── on_timeout, nothing heard: Lost
/// ```
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    waiting: bool,
    heard: bool,
}

/// What to do now that the timer went off, and when it should go off again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveAction {
    /// Send a Ping; set the timer to this.
    Ping(Duration),
    /// The peer is alive; set the timer to this.
    Rest(Duration),
    /// The peer is lost: end the connection.
    Lost,
}

impl KeepAlive {
    /// Pings every `interval`, waits `timeout` for a sign of life. The timer starts with `interval`.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, waiting: false, heard: false }
    }

    /// Bytes came from the peer; any are a sign of life.
    pub fn on_heard(&mut self) {
        self.heard = true;
    }

    /// The timer went off.
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
