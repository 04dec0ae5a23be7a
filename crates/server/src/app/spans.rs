//! Spans of connections, calls and notifications, for the logs and traces of the application.
//!
//! A connection's span is a child of the span that its request was handled in, such as that of a `TraceLayer`: what the
//! request's span records is there in every handler. Spans cost nothing while no subscriber wants them.

use std::net::SocketAddr;

use roomcast_core::LocalConnection;
use tracing::{Instrument, Span, debug_span};

use crate::app::handling::Handling;
use crate::connection::context::ConnectionContext;
use crate::end::End;

/// The span that a request is handled in.
pub(crate) fn request() -> Option<Box<Span>> {
    enabled(Span::current())
}

/// A connection's span, or that of its request if no subscriber wants one.
pub(crate) fn connection(
    connection: &LocalConnection,
    peer_addr: Option<SocketAddr>,
    request: Option<Box<Span>>,
) -> Option<Box<Span>> {
    let parent = request.as_deref().and_then(Span::id);
    let user = connection.user.as_ref().map(tracing::field::display);
    let peer_addr = peer_addr.map(tracing::field::display);
    let span = debug_span!(parent: parent, "connection", id = %connection.id, user, peer_addr);
    tracing::debug!(parent: &span, "the connection is open");
    enabled(span).or(request)
}

/// Logs how a connection ended.
pub(crate) fn on_closed(context: &ConnectionContext, end: &End) {
    let _entered = context.client.span.as_ref().map(|span| span.enter());
    tracing::debug!(connection = %context.peer.id, why = %end.disconnected(), "the connection has ended");
}

/// A call's span; the connection's if no subscriber wants one.
pub(crate) fn call(context: &ConnectionContext, method: &str) -> Span {
    // Without a parent of its own, a span would be a child of whatever the connection's task is in.
    let parent = context.client.span.as_deref();
    let span = debug_span!(parent: parent.and_then(Span::id), "call", method);
    if span.is_disabled() { parent.cloned().unwrap_or(span) } else { span }
}

/// A notification's span; the connection's if no subscriber wants one.
pub(crate) fn notification(context: &ConnectionContext, event: &str) -> Span {
    let parent = context.client.span.as_deref();
    let span = debug_span!(parent: parent.and_then(Span::id), "notification", event);
    if span.is_disabled() { parent.cloned().unwrap_or(span) } else { span }
}

/// Runs a handler in a span.
pub(crate) fn instrument(handling: Handling, span: Span) -> Handling {
    if span.is_disabled() { handling } else { Box::pin(handling.instrument(span)) }
}

/// Runs something in a connection's span.
pub(crate) async fn within<F: Future>(context: &ConnectionContext, future: F) -> F::Output {
    match context.client.span.as_deref() {
        Some(span) => future.instrument(span.clone()).await,
        None => future.await,
    }
}

fn enabled(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}
