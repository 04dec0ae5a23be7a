//! The spans that wait to be exported: a bounded number, beyond which they are dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// How many spans may wait: about 4 MiB.
const MAX_WAITING: usize = 4096;

/// How many spans are sent in one request.
const MAX_BATCH: usize = 512;

/// How long a span waits for others at most.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// Counts spans, and those that wait. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SpanMetrics {
    exported: IntCounter,
    dropped: IntCounterVec,
    waiting: Arc<AtomicUsize>,
}

impl SpanMetrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let exported = IntCounter::new("roomcast_trace_spans_exported_total", "Spans that the collector has accepted")?;
        let help = "Spans that were dropped, by reason: queue (too many spans waited) or export (the collector did not accept them)";
        let dropped = IntCounterVec::new(Opts::new("roomcast_trace_spans_dropped_total", help), &["reason"])?;
        for reason in ["queue", "export"] {
            dropped.with_label_values(&[reason]);
        }
        Ok(Self { exported, dropped, waiting: Arc::default() })
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.exported.clone()))?;
        registry.register(Box::new(self.dropped.clone()))
    }

    /// Takes a place for a span that has ended. [`export`](Self::export) frees it.
    fn claim_place(&self) -> bool {
        let take = |waiting| (waiting < MAX_WAITING).then_some(waiting + 1);
        let claimed = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        if !claimed {
            self.dropped.with_label_values(&["queue"]).inc();
        }
        claimed
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Begins the export of spans that have places.
    pub(super) fn export(&self, spans: usize) -> Export {
        Export { metrics: self.clone(), spans, is_accepted: false }
    }
}

/// Spans that are being exported. Dropping this frees their places, however the export ends. A place that is never freed
/// would be missing until the node ends.
pub(super) struct Export {
    metrics: SpanMetrics,
    spans: usize,
    is_accepted: bool,
}

impl Export {
    /// The collector has accepted the spans.
    pub(super) fn accept(mut self) {
        self.is_accepted = true;
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let Self { metrics, spans, is_accepted } = self;
        metrics.waiting.fetch_sub(*spans, Ordering::AcqRel);
        match is_accepted {
            true => metrics.exported.inc_by(*spans as u64),
            false => metrics.dropped.with_label_values(&["export"]).inc_by(*spans as u64),
        }
    }
}

/// Queues spans for an exporter, which a thread of its own calls.
#[derive(Debug)]
pub(crate) struct BoundedProcessor {
    inner: BatchSpanProcessor,
    metrics: SpanMetrics,
}

impl BoundedProcessor {
    pub(crate) fn new(exporter: impl SpanExporter + 'static, metrics: SpanMetrics) -> Self {
        // Spans that are being exported hold places, too, so the inner queue is never full.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_WAITING)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        Self { inner: BatchSpanProcessor::builder(exporter).with_batch_config(config).build(), metrics }
    }
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.metrics.claim_place() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_an_export_frees_the_places_of_its_spans() {
        let metrics = SpanMetrics::new().expect("valid names");
        let claimed = |count: usize| (0..count).filter(|_| metrics.claim_place()).count();
        let dropped = |reason| metrics.dropped.with_label_values(&[reason]).get();
        assert_eq!(claimed(MAX_WAITING + 1), MAX_WAITING);
        assert_eq!((dropped("queue"), metrics.waiting()), (1, MAX_WAITING));

        let accepted = metrics.export(3);
        assert_eq!(claimed(1), 0, "spans that are being exported hold their places");
        accepted.accept();
        drop(metrics.export(4)); // refused, or given up
        assert_eq!((metrics.exported.get(), dropped("export"), dropped("queue")), (3, 4, 2));
        assert_eq!(claimed(MAX_WAITING), 7);
    }
}
