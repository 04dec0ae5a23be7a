//! Which other nodes there are, as one node hears: a pure map.
//!
//! ```text
//!            heartbeat            goodbye
//!   unknown ───────────▶ live ───────────────▶ left
//!      ▲                  │                     │
//!      └── NODE_TIMEOUT without a heartbeat ────┴── NODE_TIMEOUT
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// How often a node says that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// A node that was not heard of for so long is gone: three heartbeats in a row were lost.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the best reading of another node's clock is used, and how far the two clocks may drift apart in that time:
/// 30 s at 500 ppm are 15 ms.
const MAX_READING_AGE: Duration = Duration::from_secs(30);
const MAX_DRIFT: Duration = Duration::from_millis(20);

/// How many other nodes are known at once; more are not heard. About 200 bytes each.
pub const MAX_NODES: usize = 1000;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// This run of it.
    pub node: NodeId,
    /// The version it was built from.
    pub version: String,
    /// How many connections it has.
    pub connections: usize,
    /// How long it has run. No time of a clock: those of two machines may differ.
    pub uptime_seconds: u64,
}

/// The other nodes that were heard of lately.
#[derive(Debug, Default)]
pub struct Nodes {
    heard: HashMap<NodeId, Heard>,
}

#[derive(Debug)]
struct Heard {
    info: NodeInfo,
    at: Instant,
    clock: Reading,
    /// It said goodbye. It stays known as such for a while, since a heartbeat that it sent before may
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
    /// Nobody was heard of yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A heartbeat of a node, sent when its clock showed `clock`. `true`: the node was unknown until now.
    pub fn on_heartbeat(&mut self, info: NodeInfo, clock: Duration, now: Instant) -> bool {
        let reading = Reading { shown: clock, arrived: now };
        let has_place = self.heard.len() < MAX_NODES;
        match self.heard.entry(info.node) {
            Entry::Occupied(mut entry) => {
                let heard = entry.get_mut();
                (heard.info, heard.at, heard.clock) = (info, now, heard.clock.or_better(reading));
                false
            }
            Entry::Vacant(entry) if has_place => {
                entry.insert(Heard { info, at: now, clock: reading, left: false });
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// A node has left, for good: should it be started again, it is another.
    pub fn on_goodbye(&mut self, node: NodeId, now: Instant) {
        if let Some(heard) = self.heard.get_mut(&node) {
            (heard.left, heard.at) = (true, now);
        }
    }

    /// Forgets whom nobody has heard of for too long.
    pub fn expire(&mut self, now: Instant) {
        self.heard.retain(|_, heard| now.saturating_duration_since(heard.at) < NODE_TIMEOUT);
    }

    /// Nobody could be heard for a time. Silence counts from now on.
    pub fn restart_clocks(&mut self, now: Instant) {
        self.heard.values_mut().for_each(|heard| heard.at = now);
    }

    /// Who lives, in no order.
    pub fn live(&self) -> impl Iterator<Item = &NodeInfo> {
        self.heard.values().filter(|heard| !heard.left).map(|heard| &heard.info)
    }

    /// Whether this node lives.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.heard.get(&node).is_some_and(|heard| !heard.left)
    }

    /// The least that a live node's clock shows at this time. A request that expires at this reading is carried out by
    /// this time, or never.
    pub fn clock_at(&self, node: NodeId, time: Instant) -> Option<Duration> {
        let heard = self.heard.get(&node).filter(|heard| !heard.left)?;
        Some(heard.clock.at(time).saturating_sub(MAX_DRIFT))
    }
}
