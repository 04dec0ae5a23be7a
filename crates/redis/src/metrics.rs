//! What the broker counts. A struct, registered by whoever serves `/metrics`, so that tests can read it.

use prometheus::core::Collector;
use prometheus::{IntCounter, Registry};

/// Counters of one node's broker.
#[derive(Debug, Clone)]
pub struct RedisMetrics {
    /// Subscriber connections that were opened again.
    pub reconnects: IntCounter,
    /// Subscriptions that were made again: after a reconnect, or because a slot moved.
    pub resubscriptions: IntCounter,
    /// Times that events were seen to be missing.
    pub gaps: IntCounter,
    /// Events that came from a room's backlog in place of the subscription.
    pub repaired: IntCounter,
    /// Events that are known to be missed, for good.
    pub lost: IntCounter,
    /// Events that came twice and were delivered once.
    pub duplicates: IntCounter,
    /// Rooms whose last events Redis no longer knew.
    pub rewinds: IntCounter,
    /// Messages that this version can't read.
    pub unreadable: IntCounter,
    /// Probes of a node's own subscription that did not come back.
    pub probes_lost: IntCounter,
}

impl RedisMetrics {
    /// All at zero.
    pub fn new() -> Self {
        let new = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is valid");
        Self {
            reconnects: new(
                "roomcast_broker_reconnects_total",
                "Subscriber connections to Redis that were opened again",
            ),
            resubscriptions: new(
                "roomcast_broker_resubscriptions_total",
                "Rooms that were subscribed to again, after a reconnect or because their slot moved",
            ),
            gaps: new("roomcast_broker_gaps_total", "Times that a room's events were seen to be missing"),
            repaired: new(
                "roomcast_broker_events_repaired_total",
                "Room events that came from the backlog after they had been missed",
            ),
            lost: new(
                "roomcast_broker_events_lost_total",
                "Room events that this node missed for good: the backlog no longer had them",
            ),
            duplicates: new(
                "roomcast_broker_events_duplicate_total",
                "Room events that came a second time, from a publish that was tried again, and were dropped",
            ),
            rewinds: new(
                "roomcast_broker_rewinds_total",
                "Rooms whose last events Redis no longer knew: it lost its last writes, or nothing was published there for two hours",
            ),
            unreadable: new(
                "roomcast_broker_unreadable_total",
                "Messages on rooms' channels that were dropped: unreadable, or without a valid MAC",
            ),
            probes_lost: new(
                "roomcast_broker_probes_lost_total",
                "Probes that a node published to itself and that did not come back in time",
            ),
        }
    }

    /// Adds them to what a registry gathers.
    ///
    /// # Errors
    /// [`prometheus::Error`] if the registry has metrics of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let counters = [
            &self.reconnects,
            &self.resubscriptions,
            &self.gaps,
            &self.repaired,
            &self.lost,
            &self.duplicates,
            &self.rewinds,
            &self.unreadable,
            &self.probes_lost,
        ];
        let collector = |counter: &IntCounter| -> Box<dyn Collector> { Box::new(counter.clone()) };
        counters.into_iter().try_for_each(|counter| registry.register(collector(counter)))
    }
}

impl Default for RedisMetrics {
    fn default() -> Self {
        Self::new()
    }
}
