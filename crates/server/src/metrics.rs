//! The metrics of connections and calls. The program that serves `/metrics` registers them.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use roomcast_core::Right;
use roomcast_protocol::{CloseCode, SUBPROTOCOL};

use crate::end::CancelCause;
use crate::end::End;
use crate::error::{CallError, Code};
use crate::rate::Action;

/// From quick responses to calls that run for minutes.
const CALL_BUCKETS: &[f64] =
    &[0.00025, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// From work that stops at its next await to blocking work that never checks whether it was cancelled.
const STOP_BUCKETS: &[f64] = &[0.00025, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];

/// The label of methods that are not registered. Clients must not be able to create label values.
pub(crate) const UNKNOWN_METHOD: &str = "unknown";

/// The reason of a denial by the client's grants.
const NOT_GRANTED: &str = "not_granted";

/// The reason of a denial because the client is not in the room.
const NOT_A_MEMBER: &str = "not_a_member";

/// The names of the limits that are not about an [`Action`], as in the options.
pub(crate) mod limits {
    pub(crate) const CONNECTIONS: &str = "connections";
    pub(crate) const MAX_CONNECTIONS_PER_ADDRESS: &str = "max_connections_per_address";

    pub(crate) const MAX_NODE_ROOMS: &str = "max_node_rooms";

    pub(super) const ALL: [&str; 3] = [CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_NODE_ROOMS];
}

/// Why requests are not upgraded. Other reasons are the names of limits of an address, and the codes of an authorizer's
/// errors.
pub(crate) mod refusals {
    pub(crate) const HANDSHAKE: &str = "handshake";
    pub(crate) const MAX_CONNECTIONS: &str = "max_connections";
    pub(crate) const MEMORY: &str = "memory";
    pub(crate) const NOT_UPGRADABLE: &str = "not_upgradable";
    pub(crate) const SUBPROTOCOL: &str = "subprotocol";
    pub(crate) const VERSION: &str = "version";

    pub(super) const ALL: [&str; 6] = [HANDSHAKE, MAX_CONNECTIONS, MEMORY, NOT_UPGRADABLE, SUBPROTOCOL, VERSION];
}

/// The metrics of one [`Node`](crate::Node)'s connections, calls and notifications.
#[derive(Debug)]
pub(crate) struct Metrics {
    connections: IntGaugeVec,
    connections_open: IntGauge,
    max_connections: IntGauge,
    connections_opened: IntCounter,
    connections_closed: IntCounterVec,
    pub(crate) calls_in_flight: IntGauge,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    cancellations: IntCounterVec,
    /// The most frequent cause, looked up once.
    resets: IntCounter,
    cancelled_in_flight: IntGauge,
    stop_duration: HistogramVec,
    pub(crate) notifications_received: IntCounter,
    notifications_failed: IntCounterVec,
    slow_consumers: IntCounter,
    upgrades_refused: IntCounterVec,
    denials: IntCounterVec,
    limits_reached: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        let connections =
            IntGaugeVec::new(Opts::new("roomcast_connections", "Open connections, by subprotocol"), &["protocol"])
                .expect(VALID);
        let cancellations = counters("roomcast_cancellations_total", "Cancelled calls, by cause", &["cause"]);
        let stop_duration = histograms(
            "roomcast_call_stop_duration_seconds",
            "Time from the cancellation of a call until its work has ended, by cause",
            STOP_BUCKETS,
            "cause",
        );
        stop_duration.with_label_values(&[CancelCause::Reset.as_str()]);
        let denials = counters(
            "roomcast_denials_total",
            "Requests of clients that were denied, by the right that they need and the reason",
            &["right", "reason"],
        );
        for right in [Right::Join, Right::Publish, Right::Members, Right::Call] {
            denials.with_label_values(&[right.as_str(), NOT_GRANTED]);
        }
        Arc::new(Self {
            connections_open: connections.with_label_values(&[SUBPROTOCOL]),
            connections,
            max_connections: limit("roomcast_max_connections", "Connections that can be open at once", max_connections),
            connections_opened: counter("roomcast_connections_opened_total", "Connections opened"),
            connections_closed: counters(
                "roomcast_connections_closed_total",
                "Connections ended, by close code; 1005: the Close contained none, 1006: lost without a Close, other: any other code",
                &["code"],
            ),
            calls_in_flight: gauge("roomcast_calls_in_flight", "Calls whose work has not ended"),
            calls: counters(
                "roomcast_calls_total",
                "Finished calls, by method and outcome: ok, cancelled or the code of the error",
                &["method", "outcome"],
            ),
            call_duration: histograms(
                "roomcast_call_duration_seconds",
                "Time from the request of a call to its outcome, by method",
                CALL_BUCKETS,
                "method",
            ),
            resets: cancellations.with_label_values(&[CancelCause::Reset.as_str()]),
            cancellations,
            cancelled_in_flight: gauge(
                "roomcast_cancelled_calls_in_flight",
                "Cancelled calls whose work has not ended",
            ),
            stop_duration,
            notifications_received: counter("roomcast_notifications_received_total", "Notifications from clients"),
            notifications_failed: counters(
                "roomcast_notifications_failed_total",
                "Notifications from clients that were dropped, by the code of the error",
                &["code"],
            ),
            slow_consumers: counter("roomcast_slow_consumers_total", "Connections closed with 4408"),
            upgrades_refused: counters_at_zero(
                "roomcast_upgrades_refused_total",
                "Requests that were not upgraded to a connection, by reason; in capitals: the code of the authorizer's error",
                "reason",
                refusals::ALL,
            ),
            denials,
            limits_reached: counters_at_zero(
                "roomcast_limits_reached_total",
                "Requests of clients that were refused because of a limit for each client, address or node, by limit",
                "limit",
                Action::ALL.map(Action::limit_name).into_iter().chain(limits::ALL),
            ),
        })
    }

    pub(crate) fn set_max_connections(&self, limit: usize) {
        self.max_connections.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Registers the metrics in a registry.
    ///
    /// # Errors
    /// Returns `prometheus::Error` if the registry already has metrics with these names.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let collectors: [Box<dyn Collector>; 16] = [
            Box::new(self.connections.clone()),
            Box::new(self.max_connections.clone()),
            Box::new(self.connections_opened.clone()),
            Box::new(self.connections_closed.clone()),
            Box::new(self.calls_in_flight.clone()),
            Box::new(self.calls.clone()),
            Box::new(self.call_duration.clone()),
            Box::new(self.cancellations.clone()),
            Box::new(self.cancelled_in_flight.clone()),
            Box::new(self.stop_duration.clone()),
            Box::new(self.notifications_received.clone()),
            Box::new(self.notifications_failed.clone()),
            Box::new(self.slow_consumers.clone()),
            Box::new(self.upgrades_refused.clone()),
            Box::new(self.denials.clone()),
            Box::new(self.limits_reached.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))
    }

    /// Counts a call as cancelled, and as in flight until [`on_stopped`](Self::on_stopped).
    pub(crate) fn on_cancelled(&self, cause: CancelCause) {
        match cause {
            CancelCause::Reset => self.resets.inc(),
            other => self.cancellations.with_label_values(&[other.as_str()]).inc(),
        }
        self.cancelled_in_flight.inc();
    }

    /// Records that the work of a cancelled call has ended, so long after the cancellation.
    pub(crate) fn on_stopped(&self, cause: CancelCause, elapsed: Duration) {
        self.cancelled_in_flight.dec();
        self.stop_duration.with_label_values(&[cause.as_str()]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn on_notification_failed(&self, code: Code) {
        self.notifications_failed.with_label_values(&[code.as_str()]).inc();
    }

    /// Counts a request that was refused because of a limit.
    pub(crate) fn on_limit_reached(&self, limit: &str) {
        self.limits_reached.with_label_values(&[limit]).inc();
    }

    /// Counts a request for which the client lacks a right.
    pub(crate) fn on_not_granted(&self, right: Right) {
        self.denials.with_label_values(&[right.as_str(), NOT_GRANTED]).inc();
    }

    /// Counts a publish by a client that is not in the room.
    pub(crate) fn on_not_a_member(&self) {
        self.denials.with_label_values(&[Right::Publish.as_str(), NOT_A_MEMBER]).inc();
    }

    /// Counts a request that is not upgraded to a connection.
    pub(crate) fn on_upgrade_refused(&self, reason: &str) {
        self.upgrades_refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn method(&self, name: &str) -> Arc<MethodMetrics> {
        Arc::new(MethodMetrics {
            ok: self.calls.with_label_values(&[name, Outcome::Ok.as_str()]),
            cancelled: self.calls.with_label_values(&[name, Outcome::Cancelled.as_str()]),
            duration: self.call_duration.with_label_values(&[name]),
            calls: self.calls.clone(),
            name: name.to_owned(),
        })
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections_opened.inc();
        metrics.connections_open.inc();
        Self(Arc::clone(metrics))
    }

    /// Records how the connection ended.
    pub(crate) fn closed(&self, end: &End) {
        if matches!(end, End::ByServer(close) if close.code == CloseCode::SLOW_CONSUMER) {
            self.0.slow_consumers.inc();
        }
        let code = end.disconnected().code;
        let label = match code.0 {
            1000..=1015 | 4401 | 4408 | 4409 => code.to_string(),
            _ => "other".to_owned(),
        };
        self.0.connections_closed.with_label_values(&[label.as_str()]).inc();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.dec();
    }
}

/// The metrics of one method, looked up once.
#[derive(Debug)]
pub(crate) struct MethodMetrics {
    name: String,
    ok: IntCounter,
    cancelled: IntCounter,
    duration: Histogram,
    calls: IntCounterVec,
}

/// How a call ended, as a label of metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Ok,
    Failed(Code),
    Cancelled,
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T, CallError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) => Self::Failed(error.code),
        }
    }

    /// Returns the outcome's name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(code) => code.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

impl MethodMetrics {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn on_end(&self, outcome: Outcome, elapsed: Duration) {
        self.duration.observe(elapsed.as_secs_f64());
        let outcome = match outcome {
            Outcome::Ok => return self.ok.inc(),
            Outcome::Failed(code) => code.as_str(),
            Outcome::Cancelled => return self.cancelled.inc(),
        };
        self.calls.with_label_values(&[self.name.as_str(), outcome]).inc();
    }
}

const VALID: &str = "the name and labels are valid";

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(VALID)
}

fn limit(name: &str, help: &str, value: usize) -> IntGauge {
    let gauge = gauge(name, help);
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(VALID)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

/// Counters that are there from the start, so that dashboards and rates find them.
fn counters_at_zero(
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = &'static str>,
) -> IntCounterVec {
    let counters = counters(name, help, &[label]);
    for value in values {
        counters.with_label_values(&[value]);
    }
    counters
}

fn histograms(name: &str, help: &str, buckets: &[f64], label: &str) -> HistogramVec {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label]).expect(VALID)
}
