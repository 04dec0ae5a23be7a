//! Which other nodes there are: a pure map.
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

/// A node without a heartbeat for this time is gone: three in a row were lost.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the best reading of another node's clock is used, and how far the two clocks may drift apart in that time:
/// 30 s at 500 ppm are 15 ms.
const MAX_READING_AGE: Duration = Duration::from_secs(30);
const MAX_DRIFT: Duration = Duration::from_millis(20);

/// How many other nodes are known at once; heartbeats of more are ignored. About 200 bytes each.
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
    /// This run of it.
    pub node: NodeId,
    /// The version it was built from.
    pub version: String,
    /// How many connections it has.
    pub connections: usize,
    /// How long it has run. Not a date: the clocks of two machines may differ.
    pub uptime_seconds: u64,
}

impl NodeInfo {
    /// A node that has just started and has no connections.
    pub fn new(node: NodeId, version: impl Into<String>) -> Self {
        Self { node, version: version.into(), connections: 0, uptime_seconds: 0 }
    }
}

/// The other nodes that sent a heartbeat lately.
#[derive(Debug, Default)]
pub struct Nodes {
    known: HashMap<NodeId, Known>,
}

#[derive(Debug)]
struct Known {
    info: NodeInfo,
    at: Instant,
    clock: Reading,
    /// It has left. It stays known as such for a while, since a heartbeat that it sent before may
    /// come after: only one room's events are in order.
    left: bool,
}

/// What a node's clock showed, and when that reading arrived. The message took some time, so the clock is ahead of what
/// is computed from the reading, never behind.
#[derive(Debug, Clone, Copy)]
struct Reading {
    shown: Duration,
    arrived: Instant,
}

impl Reading {
    /// The least that the clock shows at that time.
    fn at(self, time: Instant) -> Duration {
        let passed = time.saturating_duration_since(self.arrived);
        (self.shown + passed).saturating_sub(self.arrived.saturating_duration_since(time))
    }

    /// The reading that arrived faster; the new one if this one is old.
    fn or_better(self, new: Self) -> Self {
        let is_old = new.arrived.saturating_duration_since(self.arrived) > MAX_READING_AGE;
        if is_old || new.shown >= self.at(new.arrived) { new } else { self }
    }
}

impl Nodes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// A heartbeat of a node, sent when its clock showed `clock`. `true`: the node was unknown until now.
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

    /// A node has left, for good: should it be started again, it is another.
    pub fn on_leave(&mut self, node: NodeId, now: Instant) {
        if let Some(known) = self.known.get_mut(&node) {
            (known.left, known.at) = (true, now);
        }
    }

    /// Forgets nodes without a heartbeat for too long.
    pub fn expire(&mut self, now: Instant) {
        self.known.retain(|_, known| now.saturating_duration_since(known.at) < NODE_TIMEOUT);
    }

    /// No heartbeat could arrive for a time. Silence counts from now on.
    pub fn restart_clocks(&mut self, now: Instant) {
        self.known.values_mut().for_each(|known| known.at = now);
    }

    /// The live nodes, in no order.
    pub fn live(&self) -> impl Iterator<Item = &NodeInfo> {
        self.known.values().filter(|known| !known.left).map(|known| &known.info)
    }

    /// Whether a node is live.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| !known.left)
    }

    /// The least that a live node's clock shows at this time. A request that expires at this reading is carried out by
    /// this time, or never.
    pub fn clock_at(&self, node: NodeId, time: Instant) -> Option<Duration> {
        let known = self.known.get(&node).filter(|known| !known.left)?;
        Some(known.clock.at(time).saturating_sub(MAX_DRIFT))
    }
}
