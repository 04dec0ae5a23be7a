//! Decides which traces are sampled, and which spans belong to them.

use std::sync::atomic::{AtomicU64, Ordering};

use roomcast::trace::{CONTINUED, INNER, TARGET};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// 2^64 divided by the golden ratio. Multiples of it, modulo 2^64, are spread evenly.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Decides which traces are sampled. A decision costs one addition.
#[derive(Debug)]
pub(crate) struct TraceSampler {
    /// Traces whose number is below this are sampled. `None` samples all.
    threshold: Option<u64>,
    next: AtomicU64,
}

impl TraceSampler {
    /// Samples this part of all traces.
    pub(crate) fn new(ratio: f64) -> Self {
        let threshold = (ratio < 1.0).then_some((ratio * u64::MAX as f64) as u64);
        Self { threshold, next: AtomicU64::new(0) }
    }

    /// Decides whether the trace that begins next is sampled.
    pub(crate) fn samples_next(&self) -> bool {
        self.threshold.is_none_or(|threshold| self.next.fetch_add(STEP, Ordering::Relaxed) < threshold)
    }
}

/// Enables the spans of sampled traces. An operation that is not sampled has no span, so there is no current span for what
/// it does.
#[derive(Debug)]
pub(crate) struct SpanFilter;

fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && [TARGET, INNER, CONTINUED].contains(&metadata.target())
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Filter<S> for SpanFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        match metadata.target() {
            _ if !is_traced(metadata) => false,
            INNER => context.lookup_current().is_some(),
            _ => true,
        }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_traced(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Level::DEBUG.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_all_traces_is_sampled() {
        let sampled = |ratio| {
            let sampler = TraceSampler::new(ratio);
            (0..10_000).filter(|_| sampler.samples_next()).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((95..=105).contains(&sampled(0.01)) && (4_990..=5_010).contains(&sampled(0.5)));
    }
}
