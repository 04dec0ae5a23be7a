//! The trace contexts that events and requests carry, so that the spans of one publish on several
//! nodes, and those of a backend that answers a call, belong to one trace.
//!
//! All spans of this crate and of those above it are spans of the crate `tracing`. Their targets are
//! [`TARGET`], [`INNER`] and [`CONTINUED`]. A subscriber that exports them, for example over
//! OpenTelemetry, [installs](set_propagator) a [`Propagator`].
//!
//! Whether a trace is sampled is decided once, by [`samples_next`], before its first span is built. A
//! filter of `tracing-subscriber` could decide, too, but would not save the cost of the span, which the
//! registry keeps even if all filters have disabled it. A subscriber therefore enables all spans with
//! the targets [`TARGET`] and [`CONTINUED`]. It builds spans with the target [`INNER`] only within
//! others: without a current span, they belong to an operation that is not sampled.

use std::fmt::{Debug, Display};
use std::sync::OnceLock;

use roomcast_protocol::Name;
use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use crate::id::{NodeId, RoomName};

/// The target of spans that begin a trace. They exist only if it is sampled.
pub const TARGET: &str = "roomcast::trace";

/// The target of spans of what calls and requests do. They belong to the current span's trace.
pub const INNER: &str = "roomcast::trace::inner";

/// The target of spans that belong to a trace that began elsewhere. They exist only if that trace is
/// sampled, so a subscriber must enable them all.
pub const CONTINUED: &str = "roomcast::trace::continued";

/// A span of a sampled trace, as in the W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id.
    pub trace: [u8; 16],
    /// The span's id.
    pub span: [u8; 8],
}

impl TraceContext {
    /// The size of a context in messages, in bytes.
    pub const LEN: usize = 16 + 8;

    fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-01", self.trace_id(), u64::from_be_bytes(self.span))
    }

    /// Returns the trace's id as trace viewers show it, for log lines.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }
}

/// The span of another process to which a request belongs, by its headers `traceparent` and
/// `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent<'headers> {
    /// There is no such span, so the request begins a trace.
    None,
    /// A span whose trace is not sampled, so the request is not, either.
    NotSampled,
    /// A span of a sampled trace, which the request continues.
    Sampled {
        /// The span.
        context: TraceContext,
        /// The value of `tracestate`, which has not been checked.
        state: &'headers str,
    },
}

impl<'headers> Parent<'headers> {
    /// Parses the values of the headers `traceparent` and `tracestate`. An invalid `traceparent` is
    /// ignored.
    ///
    /// ```
    /// use roomcast_core::trace::Parent;
    ///
    /// let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-1234567812345678-01";
    /// assert!(matches!(Parent::parse(Some(sampled), None), Parent::Sampled { .. }));
    /// assert_eq!(Parent::parse(Some(&sampled.replace("-01", "-00")), None), Parent::NotSampled);
    /// assert_eq!(Parent::parse(Some(&sampled.replace("1234567812345678", "0000000000000000")), None), Parent::None);
    /// assert_eq!(Parent::parse(None, None), Parent::None);
    /// ```
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&'headers str>) -> Self {
        let parent = traceparent.and_then(|traceparent| Self::parse_valid(traceparent, tracestate.unwrap_or_default()));
        parent.unwrap_or(Self::None)
    }

    fn parse_valid(traceparent: &str, state: &'headers str) -> Option<Self> {
        let mut fields = traceparent.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let [version] = hex(version)?;
        let [flags] = hex(flags)?;
        // Later versions may append fields; version 255 is invalid.
        if version == u8::MAX || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let context = TraceContext { trace: hex(trace)?, span: hex(span)? };
        let is_valid = context.trace != [0; 16] && context.span != [0; 8];
        is_valid.then_some(if flags & 1 == 1 { Self::Sampled { context, state } } else { Self::NotSampled })
    }
}

/// The headers that continue a span's trace in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceHeaders {
    /// The value of `traceparent`.
    pub traceparent: String,
    /// The value of `tracestate`. `None` if the trace has none, as if it began in this process.
    pub tracestate: Option<String>,
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_lower_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Connects spans to traces that cross processes.
pub trait Propagator: Debug + Send + Sync {
    /// Decides whether the trace that begins next is sampled.
    fn samples_next(&self) -> bool;

    /// Returns a span's context if its trace is sampled.
    fn context_of(&self, span: &Span) -> Option<TraceContext>;

    /// Returns the `tracestate` of a span's trace. It is empty if the trace has none.
    fn state_of(&self, span: &Span) -> String;

    /// Makes a new span the child of a span that another process has created. The `tracestate` may be
    /// invalid, in which case it must be ignored.
    fn set_parent(&self, span: &Span, parent: TraceContext, state: &str);
}

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Installs the propagator of the process. Without one, events carry no contexts.
///
/// # Errors
/// Returns the propagator if the process already has one.
pub fn set_propagator(propagator: Box<dyn Propagator>) -> Result<(), Box<dyn Propagator>> {
    PROPAGATOR.set(propagator)
}

/// Decides whether the trace that begins next is sampled. Call this before you build its first span.
/// Without a propagator, the subscriber decides about each span.
pub fn samples_next() -> bool {
    PROPAGATOR.get().is_none_or(|propagator| propagator.samples_next())
}

/// Returns a span's context if its trace is sampled.
pub fn context_of(span: &Span) -> Option<Box<TraceContext>> {
    if span.is_disabled() {
        return None;
    }
    PROPAGATOR.get()?.context_of(span).map(Box::new)
}

/// Returns the headers with which a request to another process continues a span's trace, if the trace
/// is sampled.
pub fn headers_of(span: &Span) -> Option<TraceHeaders> {
    let traceparent = context_of(span)?.traceparent();
    let tracestate = PROPAGATOR.get().map(|propagator| propagator.state_of(span)).filter(|state| !state.is_empty());
    Some(TraceHeaders { traceparent, tracestate })
}

/// Makes a new span, which has the target [`CONTINUED`], the child of this one.
#[must_use]
pub fn continued(span: Span, parent: &TraceContext) -> Span {
    continued_with_state(span, parent, "")
}

/// Does the same as [`continued`] for a trace with this `tracestate`.
#[must_use]
pub fn continued_with_state(span: Span, parent: &TraceContext, state: &str) -> Span {
    if let Some(propagator) = PROPAGATOR.get() {
        propagator.set_parent(&span, *parent, state);
    }
    span
}

/// Returns the span of a publish.
pub(crate) fn publish(room: &RoomName, event: &Name, bytes: usize) -> Span {
    debug_span!(
        target: INNER, "publish", otel.kind = "producer", otel.status_code = Empty, otel.status_description = Empty,
        messaging.system = "roomcast", messaging.operation.r#type = "send", messaging.operation.name = "publish",
        messaging.destination.name = &**room, messaging.message.body.size = bytes, roomcast.event = &**event,
    )
}

/// Records why a publish has failed.
pub(crate) fn failed(span: &Span, error: &impl Display) {
    span.record("otel.status_code", "ERROR").record("otel.status_description", display(error));
}

/// Returns the span of an event on a node, from its arrival until it is queued for the members.
pub(crate) fn deliver(parent: &TraceContext, room: &RoomName, node: NodeId) -> Span {
    let span = debug_span!(
        target: CONTINUED, "deliver", otel.kind = "consumer", messaging.system = "roomcast",
        messaging.operation.r#type = "process", messaging.operation.name = "deliver",
        messaging.destination.name = &**room, roomcast.node.id = %node, roomcast.members = Empty,
    );
    continued(span, parent)
}
