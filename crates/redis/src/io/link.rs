//! A node's subscriber connection to one server, over all the times that it is opened.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

/// How long until a connection that ended is opened again: at first, and at most.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// A connection to one server, or the wish for one.
pub(crate) struct Link {
    /// Tells this connection's reports from those of its predecessors.
    pub(crate) generation: u64,
    /// Closed, it ends the connection.
    pub(crate) output: Option<mpsc::UnboundedSender<Bytes>>,
    pub(crate) retry_at: Instant,
    retry_delay: Duration,
    /// Why the last connection ended, or was not opened.
    pub(crate) error: Option<String>,
    /// The policy by which the server evicts keys, if it does.
    pub(crate) evicts: Option<String>,
    pub(crate) connected_at: Instant,
    /// The server is no longer the master: when to leave it.
    pub(crate) leave_at: Option<Instant>,
}

impl Link {
    /// One that is to be opened now.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            generation: 0,
            output: None,
            retry_at: now,
            retry_delay: MIN_RETRY,
            error: None,
            evicts: None,
            connected_at: now,
            leave_at: None,
        }
    }

    pub(crate) fn on_connected(&mut self, evicts: Option<String>, now: Instant) {
        (self.evicts, self.connected_at, self.retry_delay) = (evicts, now, MIN_RETRY);
    }

    /// Whether the last attempt to open it succeeded.
    pub(crate) fn was_open(&self) -> bool {
        self.retry_delay == MIN_RETRY
    }

    /// It has ended, or was not opened.
    pub(crate) fn on_ended(&mut self, error: String, now: Instant) {
        (self.output, self.error, self.retry_at) = (None, Some(error), now + self.retry_delay);
        self.retry_delay = (self.retry_delay * 2).min(MAX_RETRY);
    }

    /// Ends it, to be opened anew if it is still needed. What it reports later does not count.
    pub(crate) fn give_up(&mut self, why: &str, now: Instant) {
        self.generation += 1;
        (self.output, self.error, self.retry_at) = (None, Some(why.to_owned()), now);
    }
}
