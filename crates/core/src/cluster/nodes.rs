//! Tracks which other nodes are live. It does no I/O.
//!
//! ```text
//!            heartbeat             leave
//!   unknown ───────────▶ live ───────────────▶ left
//!      ▲                  │                     │
//!      └── NODE_TIMEOUT without a heartbeat ────┴── NODE_TIMEOUT
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use crate::id::NodeId;

/// How often a node sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// How long a node without a heartbeat counts as live. It has then missed three heartbeats in a
/// row.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the best reading of another node's clock is used, and how far the two clocks may drift
/// apart in that time. In 30 s, a drift of 500 ppm is 15 ms.
const MAX_READING_AGE: Duration = Duration::from_secs(30);
const MAX_DRIFT: Duration = Duration::from_millis(20);

/// How many other nodes are tracked. Heartbeats of further nodes are ignored. A node takes about
/// 200 bytes.
pub const MAX_NODES: usize = 1000;

/// A live node, as its last heartbeat reported it.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::NodeInfo;
///
/// /// The node with the fewest connections.
/// fn least_loaded(nodes: &[NodeInfo]) -> Option<&NodeInfo> {
///     nodes.iter().min_by_key(|node| node.connections)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The id of the node's current run.
    pub node: NodeId,
    /// The node's version.
    pub version: String,
    /// How many connections the node has.
    pub connections: usize,
    /// How long the node has been running, in seconds. This is not a time of day, because the
    /// clocks of two machines may differ.
    pub uptime_seconds: u64,
}

impl NodeInfo {
    /// Creates the description of a node that has just started and has no connections.
    pub fn new(node: NodeId, version: impl Into<String>) -> Self {
        Self { node, version: version.into(), connections: 0, uptime_seconds: 0 }
    }
}

/// The other nodes whose heartbeats have arrived recently.
#[derive(Debug, Default)]
pub struct Nodes {
    known: HashMap<NodeId, Known>,
}

#[derive(Debug)]
struct Known {
    info: NodeInfo,
    at: Instant,
    clock: Reading,
    /// The node has left. It is remembered for some time, since a heartbeat that it sent earlier
    /// may arrive later: order is guaranteed only within a room.
    left: bool,
}

/// A reading of a node's clock, and when it arrived. Because the message took some time, the actual
/// clock is ahead of the value that is computed from the reading, never behind it.
#[derive(Debug, Clone, Copy)]
struct Reading {
    shown: Duration,
    arrived: Instant,
}

impl Reading {
    /// Returns the minimum that the clock shows at a time.
    fn at(self, time: Instant) -> Duration {
        let passed = time.saturating_duration_since(self.arrived);
        (self.shown + passed).saturating_sub(self.arrived.saturating_duration_since(time))
    }

    /// Returns the reading that took less time to arrive, or the new one if this one is old.
    fn or_better(self, new: Self) -> Self {
        let is_old = new.arrived.saturating_duration_since(self.arrived) > MAX_READING_AGE;
        if is_old || new.shown >= self.at(new.arrived) { new } else { self }
    }
}

impl Nodes {
    /// Creates an empty set of nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a node's heartbeat, which it sent when its clock showed `clock`. Returns whether the
    /// node was unknown until now.
    pub fn on_heartbeat(&mut self, info: NodeInfo, clock: Duration, now: Instant) -> bool {
        let reading = Reading { shown: clock, arrived: now };
        let has_place = self.known.len() < MAX_NODES;
        match self.known.entry(info.node) {
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                (known.info, known.at, known.clock) = (info, now, known.clock.or_better(reading));
                false
            }
            Entry::Vacant(entry) if has_place => {
                entry.insert(Known { info, at: now, clock: reading, left: false });
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// Records that a node has left for good. If it is started again, it has a new id.
    pub fn on_leave(&mut self, node: NodeId, now: Instant) {
        if let Some(known) = self.known.get_mut(&node) {
            (known.left, known.at) = (true, now);
        }
    }

    /// Removes nodes whose last heartbeat is too old.
    pub fn expire(&mut self, now: Instant) {
        self.known.retain(|_, known| now.saturating_duration_since(known.at) < NODE_TIMEOUT);
    }

    /// Restarts the time-outs of all nodes, after a time when no heartbeat could arrive.
    pub fn restart_clocks(&mut self, now: Instant) {
        self.known.values_mut().for_each(|known| known.at = now);
    }

    /// Returns the live nodes, in no particular order.
    pub fn live(&self) -> impl Iterator<Item = &NodeInfo> {
        self.known.values().filter(|known| !known.left).map(|known| &known.info)
    }

    /// Returns whether a node is live.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| !known.left)
    }

    /// Returns the minimum that a live node's clock shows at a time. If a request expires at this
    /// reading, the node carries it out by that time or never.
    pub fn clock_at(&self, node: NodeId, time: Instant) -> Option<Duration> {
        let known = self.known.get(&node).filter(|known| !known.left)?;
        Some(known.clock.at(time).saturating_sub(MAX_DRIFT))
    }
}
