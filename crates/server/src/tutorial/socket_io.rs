//! The tutorial's loop API: receive, match, respond.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roomcast_core::{ConnectionId, UserId};
use roomcast_protocol::{CallId, CloseCode, CloseFrame, Name};

use crate::call::calls::Refusal;
use crate::call::cancel::Cancel;
use crate::call::running::Call;
use crate::connection::context::ConnectionContext;
use crate::connection::inbound::{Permit, call_cost, notification_cost};
use crate::connection::responder::Responder;
use crate::connection::session::App;
use crate::end::Disconnected;
use crate::error::{CallError, Code, NotifyError, overloaded};
use crate::metrics::MethodMetrics;
use crate::tutorial::inbox::Inbox;
use crate::tutorial::notifier::{Notifier, let_others_run};
use crate::tutorial::procedure::{Message, Procedure, Response};

/// A client's connection, for a loop that receives the client's calls and notifications. Dropping
/// it cancels the calls that are still running and closes the connection with 1000, or with 1011 if
/// the handler panicked.
///
/// ```
/// use roomcast::{NotifyError, Procedure, SocketIo};
///
/// async fn handle(mut socket: SocketIo) -> Result<(), NotifyError> {
///     while let Ok(received) = socket.recv().await {
///         match received {
///             Procedure::Notify(message) if message.method() == "ping" => socket.notify("pong", message.data()).await?,
///             Procedure::Notify(_) => {}
///             Procedure::Call(message, response, _cancel) => response.send(message.data()).await?,
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct SocketIo {
    context: Arc<ConnectionContext>,
    inbox: Arc<Inbox>,
}

impl SocketIo {
    pub(crate) fn new(context: Arc<ConnectionContext>, inbox: Arc<Inbox>) -> Self {
        Self { context, inbox }
    }

    /// Receives the client's next call or notification, in the order of arrival.
    ///
    /// # Errors
    /// Returns [`Disconnected`] once the connection has ended and everything that arrived before
    /// the end was received.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Result<Procedure, Disconnected> {
        poll_fn(|cx| self.inbox.poll_recv(cx)).await
    }

    /// Queues an event for the client and returns without waiting. If the client's unread output
    /// exceeds [`Options::max_outbound`](crate::Options::max_outbound), the connection is closed
    /// with 4408.
    ///
    /// [`recv`](Self::recv) returns the connection's end. Until then, but for at most one second,
    /// events for the ended connection are dropped without an error.
    ///
    /// # Errors
    /// Returns [`NotifyError`] if the event's name is too long. Also returns it if the connection
    /// has ended and the loop has received its end, or if it ended more than one second ago.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is done, the event is not sent.
    pub async fn notify(&self, event: &str, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        let_others_run().await;
        let is_end_known = || self.inbox.end_known().get() || self.context.ended_long_ago();
        match self.context.notify(event, Bytes::copy_from_slice(data.as_ref())) {
            Err(error) if error.is_end() && !is_end_known() => Ok(()),
            result => result,
        }
    }

    /// Returns a handle for sending events to the client, which other tasks can keep.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.context))
    }

    /// Returns the connection's id.
    pub fn id(&self) -> ConnectionId {
        self.context.connection.id
    }

    /// Returns the connection's user, if the [upgrade](crate::SocketIoUpgrade::user) set one.
    pub fn user(&self) -> Option<&UserId> {
        self.context.connection.user()
    }
}

impl Drop for SocketIo {
    fn drop(&mut self) {
        self.inbox.end_known().set();
        let close = match std::thread::panicking() {
            true => CloseFrame::new(CloseCode::INTERNAL_ERROR, "the connection's handler failed"),
            false => CloseFrame::new(CloseCode::NORMAL, "the connection's handler is done"),
        };
        self.context.connection.outbox.close(close);
    }
}

/// Passes everything to a [`SocketIo`].
#[derive(Debug)]
pub(crate) struct LoopApp {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) method: Arc<MethodMetrics>,
}

impl App for LoopApp {
    fn on_notify(
        &mut self,
        context: &Arc<ConnectionContext>,
        _now: Instant,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame> {
        let place = self.inbox.reserve().ok_or_else(overloaded)?;
        let permit = Permit::take(&context.connection, notification_cost(&name, &payload), context.options.max_inbound)
            .ok_or_else(overloaded)?;
        place.fill(Procedure::Notify(Message { name, payload }), Some(permit));
        Ok(())
    }

    fn on_request(
        &mut self,
        context: &Arc<ConnectionContext>,
        now: Instant,
        id: CallId,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame> {
        let call = Call::new(id, &context.connection, Arc::clone(&self.method), Arc::clone(&context.metrics));
        let cost = call_cost(&name, &payload);
        let full = || {
            let message = "too many requests wait for this connection's handler";
            Refusal::Answer(CallError::new(Code::ResourceExhausted, message))
        };
        match context.admit_call(id, cost, now).and_then(|()| self.inbox.reserve().ok_or_else(full)) {
            Ok(place) => {
                let responder = Responder::start(context, id, &call, cost);
                let response = Response { responder, end_known: self.inbox.end_known().clone() };
                place.fill(Procedure::Call(Message { name, payload }, response, Cancel::new(&call)), None);
                Ok(())
            }
            Err(refusal) => context.refuse_call(id, &call, refusal),
        }
    }
}
