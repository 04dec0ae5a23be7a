//! The hub's metrics. The program that serves `/metrics` registers them, and tests read them.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::options::HubOptions;

/// Buckets for durations of microseconds in normal operation and of seconds in trouble.
const LATENCY_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The metrics of one node's rooms, publishes and deliveries.
#[derive(Debug)]
pub struct HubMetrics {
    /// Publishes by outcome.
    pub publishes: IntCounterVec,
    /// Room events queued to members.
    pub deliveries: IntCounter,
    /// The time from the acceptance of a publish to the write to a member's socket. There is one
    /// sample for each batch that is written to a connection.
    pub delivery_latency: Histogram,
    /// Rooms with members on this node.
    pub rooms: IntGauge,
    /// Memberships of this node's connections.
    pub memberships: IntGauge,
    /// Memory of unfinished messages, and of calls and notifications that handlers have not
    /// finished, in bytes.
    pub inbound_memory: IntGauge,
    /// Memory of output that is not written yet, in bytes.
    pub outbound_memory: IntGauge,
    inbound_memory_limit: IntGauge,
    outbound_memory_limit: IntGauge,
    connections_shed: IntCounterVec,
    pub(crate) shed_for_inbound: IntCounter,
    pub(crate) shed_for_outbound: IntCounter,
    /// Live nodes, including this one.
    pub nodes: IntGauge,
    /// 1 if the broker works, otherwise 0.
    pub broker_up: IntGauge,
    /// How long the broker took to accept a publish.
    pub broker_publish_duration: Histogram,
    /// Revocations that the node enforces.
    pub revocations: IntGauge,
    revocation_reads: IntCounterVec,
    pub(crate) ledger_read: IntCounter,
    pub(crate) ledger_failed: IntCounter,
    pub(crate) connections_revoked: IntCounter,
    pub(crate) published: IntCounter,
    pub(crate) publish_failed: IntCounter,
}

impl HubMetrics {
    pub(crate) fn new(options: &HubOptions) -> Self {
        let publishes = IntCounterVec::new(
            Opts::new("roomcast_publishes_total", "Publishes to rooms, by outcome: ok or the code of the error"),
            &["outcome"],
        )
        .expect("the name is valid");
        let connections_shed = IntCounterVec::new(
            Opts::new(
                "roomcast_connections_shed_total",
                "Connections closed because the node exceeded its inbound or outbound memory budget",
            ),
            &["memory"],
        )
        .expect("the name is valid");
        let revocation_reads = IntCounterVec::new(
            Opts::new("roomcast_revocation_reads_total", "Reads of the cluster's revocations, by outcome: ok or error"),
            &["outcome"],
        )
        .expect("the name is valid");
        Self {
            revocations: gauge("roomcast_revocations", "Revocations that this node enforces"),
            ledger_read: revocation_reads.with_label_values(&["ok"]),
            ledger_failed: revocation_reads.with_label_values(&["error"]),
            revocation_reads,
            connections_revoked: counter(
                "roomcast_connections_revoked_total",
                "Connections closed because their user or their credential was revoked",
            ),
            published: publishes.with_label_values(&["ok"]),
            publish_failed: publishes.with_label_values(&["UNAVAILABLE"]),
            publishes,
            deliveries: counter("roomcast_deliveries_total", "Room events queued to members on this node"),
            delivery_latency: histogram(
                "roomcast_delivery_latency_seconds",
                "Time from the acceptance of a publish to the write to a member's socket; one sample per batch written to a connection",
            ),
            rooms: gauge("roomcast_rooms", "Rooms that have members on this node"),
            memberships: gauge("roomcast_memberships", "Memberships of this node's connections in rooms"),
            inbound_memory: gauge(
                "roomcast_inbound_memory_bytes",
                "Memory of unfinished messages, and of calls and notifications that handlers have not finished",
            ),
            outbound_memory: gauge("roomcast_outbound_queue_bytes", "Memory of output not yet written to clients"),
            inbound_memory_limit: limit(
                "roomcast_inbound_memory_limit_bytes",
                "Limit of inbound memory; over it, the connections that hold the most are closed",
                options.inbound_memory,
            ),
            outbound_memory_limit: limit(
                "roomcast_outbound_memory_limit_bytes",
                "Limit of outbound memory; over it, the connections that hold the most are closed",
                options.outbound_memory,
            ),
            shed_for_inbound: connections_shed.with_label_values(&["inbound"]),
            shed_for_outbound: connections_shed.with_label_values(&["outbound"]),
            connections_shed,
            nodes: gauge("roomcast_nodes", "Live nodes in this node's cluster, itself included"),
            broker_up: gauge("roomcast_broker_up", "1 while the broker accepts publishes and delivers events"),
            broker_publish_duration: histogram(
                "roomcast_broker_publish_duration_seconds",
                "How long the broker took to accept a publish",
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
        let collectors: [Box<dyn Collector>; 16] = [
            Box::new(self.publishes.clone()),
            Box::new(self.deliveries.clone()),
            Box::new(self.delivery_latency.clone()),
            Box::new(self.rooms.clone()),
            Box::new(self.memberships.clone()),
            Box::new(self.inbound_memory.clone()),
            Box::new(self.outbound_memory.clone()),
            Box::new(self.inbound_memory_limit.clone()),
            Box::new(self.outbound_memory_limit.clone()),
            Box::new(self.connections_shed.clone()),
            Box::new(self.nodes.clone()),
            Box::new(self.broker_up.clone()),
            Box::new(self.broker_publish_duration.clone()),
            Box::new(self.revocations.clone()),
            Box::new(self.revocation_reads.clone()),
            Box::new(self.connections_revoked.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("the name is valid")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is valid")
}

fn limit(name: &str, help: &str, value: usize) -> IntGauge {
    let limit = gauge(name, help);
    limit.set(i64::try_from(value).unwrap_or(i64::MAX));
    limit
}

fn histogram(name: &str, help: &str) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
    Histogram::with_opts(opts).expect("the name and buckets are valid")
}
