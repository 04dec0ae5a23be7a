//! Spans of connections, calls and notifications, for the logs and traces of the application.
//!
//! A connection's span is a child of the span in which its request was handled, such as that of a
//! `TraceLayer`, so every handler has the fields of the request's span. Spans cost nothing if no
//! subscriber enables them.

use roomcast_core::{LocalConnection, TraceContext};
use roomcast_protocol::{CallId, Name};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::app::handling::Handling;
use crate::connection::client_info::ClientInfo;
use crate::connection::context::ConnectionContext;
use crate::end::{Disconnected, End};

/// The target of the access log: events at the level DEBUG, one for each connection that has ended,
/// with its `connection`, `user`, `peer`, close `code`, `duration_ms`, `bytes_received` and
/// `bytes_sent`. A subscriber can write them apart from other events.
pub const ACCESS: &str = "access";

/// Gives a connection a span of its own, or that of its request if no subscriber enables connection
/// spans.
pub(crate) fn open_connection(connection: &LocalConnection, client: &mut ClientInfo) {
    let parent = client.span().and_then(Span::id);
    let user = connection.user().map(tracing::field::display);
    let peer_addr = connection.peer_addr.map(tracing::field::display);
    let span = debug_span!(parent: parent, "connection", id = %connection.id, user, peer_addr);
    tracing::debug!(
        parent: &span, connection = %connection.id, user = connection.user().map(|user| &**user),
        peer = connection.peer_addr.map(tracing::field::display), "the connection is open"
    );
    client.set_span(span);
}

/// Logs how a connection ended.
pub(crate) fn on_closed(context: &ConnectionContext, end: &End) {
    let _entered = context.client.span().map(Span::enter);
    let Disconnected { code, reason } = end.disconnected();
    tracing::debug!(
        connection = %context.connection.id, user = context.user(), %code, ?reason, "the connection has ended"
    );
}

/// Writes a connection's line in the access log, once nothing more is sent.
pub(crate) fn log_access(context: &ConnectionContext, end: &End) {
    let connection = &context.connection;
    tracing::debug!(
        target: ACCESS, connection = %connection.id, user = context.user(),
        peer = connection.peer_addr.map(tracing::field::display), code = end.disconnected().code.0,
        duration_ms = connection.age().as_millis() as u64, bytes_received = connection.received(),
        bytes_sent = connection.sent(), trace_id = context.client.trace().map(TraceContext::trace_id),
        "a connection has ended"
    );
}

/// Returns a call's span, or the connection's if no subscriber enables call spans.
pub(crate) fn call(context: &ConnectionContext, id: CallId, method: &Name) -> Span {
    // Without an explicit parent, the span would be a child of the current span of the connection's
    // task.
    let parent = context.client.span();
    let parent_id = parent.and_then(Span::id);
    or_parent(debug_span!(parent: parent_id, "call", call = id.0, method = &**method, trace_id = Empty), parent)
}

/// Returns a notification's span, or the connection's if no subscriber enables notification spans.
pub(crate) fn notification(context: &ConnectionContext, event: &Name) -> Span {
    let parent = context.client.span();
    or_parent(debug_span!(parent: parent.and_then(Span::id), "notification", event = &**event), parent)
}

fn or_parent(span: Span, parent: Option<&Span>) -> Span {
    match parent {
        Some(parent) if span.is_disabled() => parent.clone(),
        _ => span,
    }
}

/// Runs a handler in a span.
pub(crate) fn instrument(handling: Handling, span: Span) -> Handling {
    if span.is_disabled() { handling } else { Box::pin(handling.instrument(span)) }
}

/// Runs a future in a connection's span.
pub(crate) async fn within<F: Future>(context: &ConnectionContext, future: F) -> F::Output {
    match context.client.span() {
        Some(span) => future.instrument(span.clone()).await,
        None => future.await,
    }
}
