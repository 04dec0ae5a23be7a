//! The metrics of hooks.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, Registry};

/// What a hook decides about, as the label `hook`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookKind {
    Connect,
    Join,
    Publish,
}

impl HookKind {
    const ALL: [Self; 3] = [Self::Connect, Self::Join, Self::Publish];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Publish => "publish",
        }
    }
}

/// How a hook decided, as the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookOutcome {
    Permitted,
    Refused,
    /// There was no decision, so the client could not do it.
    Failed,
}

impl HookOutcome {
    const ALL: [Self; 3] = [Self::Permitted, Self::Refused, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of all hooks of a node. Cheap to clone; clones share the metrics.
#[derive(Debug, Clone)]
pub struct HookMetrics {
    seconds: HistogramVec,
}

impl HookMetrics {
    /// Creates metrics that begin at zero.
    ///
    /// # Errors
    /// Returns `prometheus::Error` if a metric is invalid, which does not happen.
    pub fn new() -> Result<Self, prometheus::Error> {
        let help = "Time until a hook decided about a request of a client, by outcome";
        let options = HistogramOpts::new("roomcast_hook_seconds", help);
        let buckets = vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let seconds = HistogramVec::new(options.buckets(buckets), &["hook", "outcome"])?;
        for kind in HookKind::ALL {
            for outcome in HookOutcome::ALL {
                seconds.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        Ok(Self { seconds })
    }

    /// Registers the metrics in a registry.
    ///
    /// # Errors
    /// Returns `prometheus::Error` if the registry already has metrics with these names.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.seconds.clone()))
    }

    pub(crate) fn observe(&self, kind: HookKind, outcome: HookOutcome, took: Duration) {
        self.seconds.with_label_values(&[kind.as_str(), outcome.as_str()]).observe(took.as_secs_f64());
    }
}
