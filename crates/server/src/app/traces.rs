//! The spans of handshakes, closes, calls and notifications that subscribers export as traces.
//!
//! `spans` has those that describe log lines. A connection has no span that lasts as long as the
//! connection: an exporter sends a span only when it ends, and idle connections would need memory
//! for it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::request::Parts;
use roomcast_core::trace::{
    CONTINUED, INNER, Parent, TARGET, context_of, continued, continued_with_state, samples_next,
};
use roomcast_protocol::{CloseFrame, Name};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span, debug_span};

use crate::app::handling::Handling;
use crate::call::running::Call;
use crate::connection::context::ConnectionContext;
use crate::end::{CancelCause, End};
use crate::error::{CallError, Code};
use crate::options::Options;

/// Returns the span of a handshake, from the first decision about it to the end of the connect
/// handler. If the options allow this, it belongs to the client's trace, and exists only if the
/// client samples that trace.
pub(crate) fn connect(request: &Parts, peer: Option<SocketAddr>, options: &Options) -> Span {
    let address = peer.map(|peer| display(peer.ip()));
    let header = |name| request.headers.get(name).filter(|_| options.trace_clients)?.to_str().ok();
    match Parent::parse(header("traceparent"), header("tracestate")) {
        Parent::Sampled { context, state } => continued_with_state(
            debug_span!(
                target: CONTINUED, "connect", otel.kind = "server", otel.status_code = Empty, client.address = address,
                roomcast.connect.outcome = Empty, roomcast.connection.id = Empty, user.id = Empty,
                roomcast.close.code = Empty,
            ),
            &context,
            state,
        ),
        Parent::NotSampled => Span::none(),
        Parent::None if !samples_next() => Span::none(),
        Parent::None => debug_span!(
            target: TARGET, "connect", otel.kind = "server", otel.status_code = Empty, client.address = address,
            roomcast.connect.outcome = Empty, roomcast.connection.id = Empty, user.id = Empty,
            roomcast.close.code = Empty,
        ),
    }
}

/// Returns the span of the authorizer's decision, in that of the handshake.
pub(crate) fn authorize() -> Span {
    debug_span!(target: INNER, "authorize")
}

/// Records why a client was refused before it had a connection.
pub(crate) fn on_refused(span: &Span, reason: &str) {
    span.record("roomcast.connect.outcome", reason).record("otel.status_code", "ERROR");
}

/// Records which connection has opened, or the Close with which it was refused.
pub(crate) fn on_connected(span: &Span, context: &ConnectionContext, refused: Option<&CloseFrame>) {
    if span.is_disabled() {
        return;
    }
    let connection = &context.connection;
    span.record("roomcast.connection.id", display(connection.id));
    if let Some(user) = connection.user() {
        span.record("user.id", &**user);
    }
    match refused {
        None => drop(span.record("roomcast.connect.outcome", "accepted")),
        Some(close) => {
            on_refused(span, "closed");
            span.record("roomcast.close.code", close.code.0);
        }
    }
}

/// Creates the span of a connection's end, if its handshake was traced.
pub(crate) fn disconnect(context: &ConnectionContext, end: &End) {
    let Some(parent) = context.client.trace() else { return };
    let span = debug_span!(
        target: CONTINUED, "disconnect", otel.kind = "server", roomcast.connection.id = %context.connection.id,
        roomcast.close.code = end.disconnected().code.0, roomcast.cancel.cause = end.cancel_cause().as_str(),
    );
    drop(continued(span, parent));
}

/// Returns the span of a call, whose context the call keeps.
pub(crate) fn call(context: &ConnectionContext, call: &Call, method: &Name) -> Span {
    if !samples_next() {
        return Span::none();
    }
    let connection = &context.connection;
    let span = debug_span!(
        target: TARGET, "call", otel.name = call.method(), otel.kind = "server", otel.status_code = Empty,
        rpc.system.name = "roomcast", rpc.method = &**method, rpc.response.status_code = Empty,
        roomcast.connection.id = %connection.id, user.id = connection.user().map(|user| &**user),
        roomcast.cancel.cause = Empty,
    );
    call.set_trace(context_of(&span));
    span
}

/// Returns the span of a notification.
pub(crate) fn notification(context: &ConnectionContext, event: &Name) -> Span {
    if !samples_next() {
        return Span::none();
    }
    let connection = &context.connection;
    debug_span!(
        target: TARGET, "notification", otel.kind = "server", otel.status_code = Empty, roomcast.event = &**event,
        rpc.response.status_code = Empty, roomcast.connection.id = %connection.id,
        user.id = connection.user().map(|user| &**user),
    )
}

/// Runs a notification's handler in its span, and records the result. A span without a result
/// belongs to a handler that was dropped before it returned.
pub(crate) fn follow_notification(handling: Handling, span: Span) -> Handling {
    if span.is_disabled() {
        return handling;
    }
    Box::pin(async move {
        let result = handling.instrument(span.clone()).await;
        record_result(&span, &result);
        result
    })
}

fn record_result<T>(span: &Span, result: &Result<T, CallError>) {
    let code = result.as_ref().err().map(|error| error.code);
    span.record("rpc.response.status_code", code.map_or("OK", Code::as_str));
    if code.is_some_and(Code::is_fault) {
        span.record("otel.status_code", "ERROR");
    }
}

/// Runs a call's handler in its span, and records how the call ends.
pub(crate) fn follow(handling: Handling, span: Span, call: &Arc<Call>) -> Handling {
    if span.is_disabled() {
        return handling;
    }
    Box::pin(Traced { handling: Some(handling), span, call: Arc::clone(call) })
}

/// A handler in the span of its call.
struct Traced {
    /// `None` after the handler has returned.
    handling: Option<Handling>,
    span: Span,
    call: Arc<Call>,
}

impl Future for Traced {
    type Output = <Handling as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.span.enter();
        let Some(handling) = &mut this.handling else { return Poll::Pending };
        let result = std::task::ready!(handling.as_mut().poll(cx));
        this.handling = None;
        record_result(&this.span, &result);
        Poll::Ready(result)
    }
}

impl Drop for Traced {
    /// Records why the handler was dropped before it returned.
    fn drop(&mut self) {
        let Some(handling) = self.handling.take() else { return };
        self.span.in_scope(|| drop(handling));
        // A handler that nothing has cancelled was dropped by its panic.
        let cause = self.call.cause().unwrap_or(CancelCause::Panic);
        let code = match cause {
            CancelCause::Deadline => Code::DeadlineExceeded,
            CancelCause::Panic => Code::Internal,
            _ => Code::Cancelled,
        };
        self.span.record("rpc.response.status_code", code.as_str()).record("roomcast.cancel.cause", cause.as_str());
        if code.is_fault() {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}
