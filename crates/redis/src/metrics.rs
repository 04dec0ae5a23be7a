//! The broker's metrics. The program that serves `/metrics` registers them, and tests read them.

use prometheus::core::Collector;
use prometheus::{IntCounter, Registry};

/// The counters of a node's broker.
///
/// ```no_run
/// use prometheus::Registry;
/// use roomcast_redis::RedisBroker;
///
/// fn register(broker: &RedisBroker, registry: &Registry) -> Result<(), prometheus::Error> {
///     broker.metrics().register(registry)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisMetrics {
    /// Subscriber connections that were reopened.
    pub reconnects: IntCounter,
    /// Subscriptions that were renewed, after a reconnect or because a slot moved.
    pub resubscriptions: IntCounter,
    /// Gaps that were detected in the events of rooms.
    pub gaps: IntCounter,
    /// Missing events that were read from the history of their room.
    pub repaired: IntCounter,
    /// Missing events that were no longer in the history of their room.
    pub lost: IntCounter,
    /// Events that arrived twice and were delivered once.
    pub duplicates: IntCounter,
    /// Rooms whose last events Redis no longer had.
    pub history_resets: IntCounter,
    /// Events that this node's publishes removed from histories that had too many bytes, although the
    /// limit of events would have kept them.
    pub history_dropped: IntCounter,
    /// Messages on the channels of rooms that were dropped, because they could not be decoded or
    /// had no valid MAC.
    pub decode_errors: IntCounter,
    /// Probes that the node published to itself and that did not come back in time.
    pub probes_lost: IntCounter,
}

impl RedisMetrics {
    /// Creates the counters, all at zero.
    pub fn new() -> Self {
        let new = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is valid");
        Self {
            reconnects: new(
                "roomcast_broker_reconnects_total",
                "Subscriber connections to Redis that were opened again",
            ),
            resubscriptions: new(
                "roomcast_broker_resubscriptions_total",
                "Subscriptions to rooms that were renewed, after a reconnect or because a slot moved",
            ),
            gaps: new(
                "roomcast_broker_gaps_total",
                "Times that events of a room were missing and its history was read",
            ),
            repaired: new(
                "roomcast_broker_events_repaired_total",
                "Room events that were missing and came from the history",
            ),
            lost: new(
                "roomcast_broker_events_lost_total",
                "Room events that were missing and no longer in the history",
            ),
            duplicates: new(
                "roomcast_broker_events_duplicate_total",
                "Room events that arrived again because a publish was retried, and were dropped",
            ),
            history_resets: new(
                "roomcast_broker_history_resets_total",
                "Rooms whose last events Redis no longer had: it lost its last writes, or nothing was published in the room for two hours",
            ),
            history_dropped: new(
                "roomcast_broker_history_events_dropped_total",
                "Room events that left a history early because it had more bytes than redis_history_bytes",
            ),
            decode_errors: new(
                "roomcast_broker_decode_errors_total",
                "Messages on the channels of rooms that were dropped: their format is unknown, or their MAC is missing or wrong",
            ),
            probes_lost: new(
                "roomcast_broker_probes_lost_total",
                "Probes that the node published to itself and that did not come back in time",
            ),
        }
    }

    /// Registers the metrics in a registry.
    ///
    /// # Errors
    /// Returns [`prometheus::Error`] if the registry already has metrics with these names.
    ///
    /// [`prometheus::Error`]: https://docs.rs/prometheus/0.14/prometheus/enum.Error.html
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let counters = [
            &self.reconnects,
            &self.resubscriptions,
            &self.gaps,
            &self.repaired,
            &self.lost,
            &self.duplicates,
            &self.history_resets,
            &self.history_dropped,
            &self.decode_errors,
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
