//! Trace contexts of spans, for other processes and from them.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use roomcast::TraceContext;
use roomcast::trace::Propagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The contexts that the layer of `tracing-opentelemetry` keeps for spans.
#[derive(Debug)]
pub(crate) struct OpenTelemetry;

impl Propagator for OpenTelemetry {
    fn context_of(&self, span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let context = context.span().span_context().clone();
        let is_sampled = context.is_valid() && context.is_sampled();
        is_sampled.then(|| TraceContext { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() })
    }

    fn set_parent(&self, span: &Span, parent: TraceContext) {
        let (trace, parent) = (TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
        let remote = SpanContext::new(trace, parent, TraceFlags::SAMPLED, true, TraceState::default());
        // It fails only for a span that the layer does not have.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
}
