//! Requests in the background which server owns which room, with one request at a time.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::io::commands::Commands;
use crate::state::topology::Topology;

/// The minimum time between two requests when the topology is wrong.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// The request that is under way, and when the next one is due.
pub(crate) struct TopologyRequests {
    commands: Arc<Commands>,
    under_way: Option<JoinHandle<Option<Topology>>>,
    sent_at: Option<Instant>,
    is_wanted: bool,
}

impl TopologyRequests {
    /// Creates the state, with the first request due.
    pub(crate) fn new(commands: Arc<Commands>) -> Self {
        Self { commands, under_way: None, sent_at: None, is_wanted: true }
    }

    /// Records that the topology is wrong.
    pub(crate) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Sends a request if one is wanted or the topology is old. If a request is under way or was
    /// sent too recently, the new one remains wanted.
    pub(crate) fn send_due(&mut self, now: Instant) {
        let min_age = if self.is_wanted { MIN_INTERVAL } else { self.commands.max_topology_age() };
        let is_due = self.sent_at.is_none_or(|at| now.duration_since(at) >= min_age);
        if is_due && self.under_way.is_none() {
            (self.sent_at, self.is_wanted) = (Some(now), false);
            let commands = Arc::clone(&self.commands);
            self.under_way = Some(tokio::spawn(async move { commands.topology().await }));
        }
    }

    /// Returns the response to the request that is under way. If it is `None`, another request is
    /// due.
    pub(crate) async fn response(&mut self) -> Option<Topology> {
        let Some(request) = &mut self.under_way else { return pending().await };
        let topology = request.await.ok().flatten();
        self.under_way = None;
        self.is_wanted |= topology.is_none();
        topology
    }
}
