//! The metrics of lifecycle events.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::events::store::Held;

/// The metrics of a node's lifecycle events. Those of the store are the same on all nodes.
#[derive(Debug, Clone)]
pub struct EventMetrics {
    deliveries: IntCounterVec,
    /// Events that the backend has accepted.
    pub accepted: IntCounter,
    /// Events that the backend has not accepted, each time.
    pub refused: IntCounter,
    /// Beginnings that were not recorded, because the store was unreachable for too long.
    pub unrecorded: IntCounter,
    /// Reports that the store did not apply.
    pub report_failures: IntCounter,
    /// Ends that this node has reported for lost nodes.
    pub ended_for_lost: IntCounter,
    waiting: IntGauge,
    lag: Gauge,
    dead: IntGauge,
    overflowed: IntGauge,
}

impl EventMetrics {
    /// Creates the metrics, all at zero.
    pub fn new() -> Self {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is valid");
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("the name is valid");
        let deliveries = IntCounterVec::new(
            Opts::new(
                "roomcast_lifecycle_events_delivered_total",
                "Lifecycle events that this node has sent to the backend, by outcome; failed ones are sent again",
            ),
            &["outcome"],
        )
        .expect("the name is valid");
        let [accepted, refused] = ["ok", "failed"].map(|outcome| deliveries.with_label_values(&[outcome]));
        Self {
            deliveries,
            accepted,
            refused,
            unrecorded: counter(
                "roomcast_lifecycle_events_unrecorded_total",
                "Connections and memberships without lifecycle events, because Redis was unreachable for too long",
            ),
            report_failures: counter(
                "roomcast_lifecycle_reports_failed_total",
                "Reports of lifecycle events to Redis that failed and are repeated",
            ),
            ended_for_lost: counter(
                "roomcast_lifecycle_ends_for_lost_nodes_total",
                "Connections, memberships and rooms of lost nodes whose end this node has reported",
            ),
            waiting: gauge(
                "roomcast_lifecycle_events_waiting",
                "Lifecycle events of the cluster that wait for delivery",
            ),
            lag: Gauge::new(
                "roomcast_lifecycle_events_lag_seconds",
                "How long the oldest lifecycle event of the cluster has waited for delivery",
            )
            .expect("the name is valid"),
            dead: gauge(
                "roomcast_lifecycle_events_dead",
                "Lifecycle events of the cluster that are no longer delivered and can be replayed",
            ),
            overflowed: gauge(
                "roomcast_lifecycle_events_overflowed",
                "Lifecycle events of the cluster that became dead at once because events_max were waiting",
            ),
        }
    }

    pub(crate) fn set_held(&self, held: &Held) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.waiting.set(gauge(held.waiting));
        self.lag.set(held.lag.as_secs_f64());
        self.dead.set(gauge(held.dead));
        self.overflowed.set(gauge(held.overflowed));
    }

    /// Registers the metrics in a registry.
    ///
    /// # Errors
    /// Returns [`prometheus::Error`] if the registry already has metrics with these names.
    ///
    /// [`prometheus::Error`]: https://docs.rs/prometheus/0.14/prometheus/enum.Error.html
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let collectors: [Box<dyn Collector>; 8] = [
            Box::new(self.deliveries.clone()),
            Box::new(self.unrecorded.clone()),
            Box::new(self.report_failures.clone()),
            Box::new(self.ended_for_lost.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.lag.clone()),
            Box::new(self.dead.clone()),
            Box::new(self.overflowed.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))
    }
}

impl Default for EventMetrics {
    fn default() -> Self {
        Self::new()
    }
}
