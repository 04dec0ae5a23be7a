//! Trace contexts of spans, for other processes and from them.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId};
use roomcast::TraceContext;
use roomcast::trace::Propagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::otlp::sampler::TraceSampler;

/// The contexts that the layer of `tracing-opentelemetry` keeps for spans.
#[derive(Debug)]
pub(crate) struct OpenTelemetry {
    sampler: TraceSampler,
}

impl OpenTelemetry {
    pub(crate) fn new(sampler: TraceSampler) -> Self {
        Self { sampler }
    }
}

impl Propagator for OpenTelemetry {
    fn samples_next(&self) -> bool {
        self.sampler.samples_next()
    }

    fn context_of(&self, span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let context = context.span().span_context().clone();
        let is_sampled = context.is_valid() && context.is_sampled();
        is_sampled.then(|| TraceContext { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() })
    }

    fn state_of(&self, span: &Span) -> String {
        span.context().span().span_context().trace_state().header()
    }

    fn set_parent(&self, span: &Span, parent: TraceContext, state: &str) {
        let (trace, parent) = (TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
        let state = state.parse().unwrap_or_default();
        let remote = SpanContext::new(trace, parent, TraceFlags::SAMPLED, true, state);
        // It fails only for a span that the layer does not have.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{debug_span, subscriber};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn an_inner_span_has_the_state_of_its_trace() {
        let layer = tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::default().tracer("test"));
        let propagator = OpenTelemetry::new(TraceSampler::new(1.0));
        subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for (state, expected) in [("vendor=1,other=2", "vendor=1,other=2"), ("", ""), ("not a state", "")] {
                let continued = debug_span!("continued");
                propagator.set_parent(&continued, TraceContext { trace: [1; 16], span: [2; 8] }, state);
                let inner = debug_span!(parent: &continued, "inner");
                assert_eq!(propagator.context_of(&inner).expect("it is sampled").trace, [1; 16]);
                assert_eq!(propagator.state_of(&inner), expected);
            }
        });
    }
}
