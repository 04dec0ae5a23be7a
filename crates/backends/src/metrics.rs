//! The metrics of backends.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

const BACKEND: &str = "backend";

/// The metrics of all backends of a node. Cheap to clone; clones share the metrics.
#[derive(Debug, Clone)]
pub struct BackendMetrics {
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    breakers_open: IntGaugeVec,
    stop_seconds: HistogramVec,
    cancel_notices: IntCounterVec,
}

/// How a request ended, as the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response of success.
    Ok,
    /// The backend responded with an error that the caller caused.
    Rejected,
    /// The backend responded with an error of its own.
    Failed,
    /// The request cannot be created, or the response is invalid or too large.
    Invalid,
    /// No connection, or it was lost.
    Unreachable,
    Timeout,
    /// The call ended first.
    Cancelled,
    /// Nothing was sent, because the circuit breaker is open.
    BreakerOpen,
    /// Nothing was sent, because the queue or a share of it is full, or no slot became free in time.
    NoSlot,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Rejected,
        Self::Failed,
        Self::Invalid,
        Self::Unreachable,
        Self::Timeout,
        Self::Cancelled,
        Self::BreakerOpen,
        Self::NoSlot,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::BreakerOpen => "breaker_open",
            Self::NoSlot => "no_slot",
        }
    }
}

/// The metrics of one backend.
#[derive(Debug)]
pub(crate) struct OneBackend {
    requests: IntCounterVec,
    name: String,
    pub(crate) in_flight: IntGauge,
    pub(crate) queued: IntGauge,
    pub(crate) breakers_open: IntGauge,
}

impl OneBackend {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests.with_label_values(&[&self.name, outcome.as_str()]).inc();
    }
}

/// How the notice of a cancelled call ended, as the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoticeOutcome {
    /// The backend accepted it.
    Delivered,
    /// The backend did not accept it in time.
    Failed,
    /// Too many notices were under way, of the backend or of the connection.
    Dropped,
}

impl NoticeOutcome {
    const ALL: [Self; 3] = [Self::Delivered, Self::Failed, Self::Dropped];

    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The metrics of one backend's notices.
#[derive(Debug)]
pub(crate) struct CancelNoticeMetrics {
    notices: IntCounterVec,
    name: String,
}

impl CancelNoticeMetrics {
    pub(crate) fn count(&self, outcome: NoticeOutcome) {
        self.notices.with_label_values(&[&*self.name, outcome.as_str()]).inc();
    }
}

impl BackendMetrics {
    /// Creates metrics without backends.
    ///
    /// # Errors
    /// Returns `prometheus::Error` if a metric is invalid, which does not happen.
    pub fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &[BACKEND]);
        let help = "Time from the cancellation of a request over HTTP/1.1 until its connection was closed";
        let stop_seconds = HistogramOpts::new("roomcast_backend_stop_seconds", help);
        Ok(Self {
            requests: IntCounterVec::new(
                Opts::new("roomcast_backend_requests_total", "Requests to backends that have ended, by outcome"),
                &[BACKEND, "outcome"],
            )?,
            in_flight: gauge("roomcast_backend_requests_in_flight", "Requests to backends in flight")?,
            queued: gauge("roomcast_backend_calls_queued", "Calls that wait because a backend has no free slot")?,
            breakers_open: gauge(
                "roomcast_backend_breaker_open",
                "Circuit breakers of a backend that are open, for its calls and for its hooks",
            )?,
            stop_seconds: HistogramVec::new(
                stop_seconds.buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]),
                &[BACKEND],
            )?,
            cancel_notices: IntCounterVec::new(
                Opts::new(
                    "roomcast_backend_cancel_notices_total",
                    "Notices of cancelled calls to the cancel_url of backends, by outcome",
                ),
                &[BACKEND, "outcome"],
            )?,
        })
    }

    /// Registers the metrics in a registry.
    ///
    /// # Errors
    /// Returns `prometheus::Error` if the registry already has metrics with these names.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.in_flight.clone()))?;
        registry.register(Box::new(self.queued.clone()))?;
        registry.register(Box::new(self.breakers_open.clone()))?;
        registry.register(Box::new(self.stop_seconds.clone()))?;
        registry.register(Box::new(self.cancel_notices.clone()))
    }

    /// Returns the metrics of a backend. They begin at zero.
    pub(crate) fn of(&self, name: &str) -> OneBackend {
        for outcome in Outcome::ALL {
            self.requests.with_label_values(&[name, outcome.as_str()]);
        }
        OneBackend {
            requests: self.requests.clone(),
            name: name.to_owned(),
            in_flight: self.in_flight.with_label_values(&[name]),
            queued: self.queued.with_label_values(&[name]),
            breakers_open: self.breakers_open.with_label_values(&[name]),
        }
    }

    /// Returns the metrics of a backend's notices. They begin at zero.
    pub(crate) fn cancel_notices(&self, name: &str) -> CancelNoticeMetrics {
        for outcome in NoticeOutcome::ALL {
            self.cancel_notices.with_label_values(&[name, outcome.as_str()]);
        }
        CancelNoticeMetrics { notices: self.cancel_notices.clone(), name: name.to_owned() }
    }

    pub(crate) fn stop_seconds(&self, name: &str) -> Histogram {
        self.stop_seconds.with_label_values(&[name])
    }
}
