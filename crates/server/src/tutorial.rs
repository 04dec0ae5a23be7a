//! The loop API of the tutorial: receive, match, answer.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::{ConnectionId, UserId};
use roomcast_protocol::{CallId, CloseCode, CloseFrame, Name};

use crate::call::{Call, Cancel, Responder};
use crate::error::{CallError, Code};
use crate::inbox::Inbox;
use crate::link::{Disconnected, Link, NotifyError, Permit, call_cost, notification_cost, overloaded};
use crate::metrics::MethodMetrics;
use crate::session::App;

/// What a client asks for.
#[derive(Debug)]
pub enum Procedure {
    /// An event, never answered.
    Notify(Message),
    /// A call: what is asked, how to answer, and how to learn that it is no longer wanted. Dropping the
    /// [`Response`] unused answers with an error.
    Call(Message, Response, Cancel),
}

/// A name and its payload.
#[derive(Debug, Clone)]
pub struct Message {
    name: Name,
    payload: Bytes,
}

impl Message {
    /// The event's or procedure's name.
    pub fn method(&self) -> &str {
        &self.name
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        &self.payload
    }
}

/// The right to answer one call, once.
#[derive(Debug)]
pub struct Response(Responder);

impl Response {
    /// Answers the call. If it was cancelled meanwhile, nothing is sent: that is no error.
    ///
    /// Queues and does not wait for the client.
    ///
    /// # Errors
    /// [`NotifyError::Closed`] once the connection is known to have ended.
    pub async fn send(self, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        self.finish(Ok(Bytes::copy_from_slice(data.as_ref())))
    }

    /// Answers the call with an error.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn fail(self, error: CallError) -> Result<(), NotifyError> {
        self.finish(Err(error))
    }

    fn finish(self, result: Result<Bytes, CallError>) -> Result<(), NotifyError> {
        let link = Arc::clone(self.0.link());
        self.0.answer(result);
        link.check_end_is_unknown()
    }
}

/// A client's connection: its handler's loop receives from it. Dropping it closes the connection, with
/// 1000, or 1011 if the handler panicked, and cancels the calls that still run.
#[derive(Debug)]
pub struct SocketIo {
    link: Arc<Link>,
    inbox: Arc<Inbox>,
}

impl SocketIo {
    pub(crate) fn new(link: Arc<Link>, inbox: Arc<Inbox>) -> Self {
        Self { link, inbox }
    }

    /// The next that the client asks for, in its order. Cancel safe.
    ///
    /// # Errors
    /// [`Disconnected`] once the connection has ended and everything before was received.
    pub async fn recv(&mut self) -> Result<Procedure, Disconnected> {
        let received = poll_fn(|cx| self.inbox.poll_recv(cx)).await;
        if received.is_err() {
            self.link.set_handler_knows_end();
        }
        received
    }

    /// Sends an event to the client. Queues and does not wait: a client that lets more than
    /// [`Options::max_outbound`](crate::Options::max_outbound) bytes wait is closed with 4408.
    ///
    /// A connection's end is learnt from [`recv`](Self::recv). Until it has told of it, and for at most a
    /// second, notifications to an ended connection are dropped without an error, as those on the wire are.
    ///
    /// # Errors
    /// [`NotifyError`] if the name is too long or the connection is known to have ended.
    pub async fn notify(&self, event: &str, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        let_others_run().await;
        self.link.notify(event, Bytes::copy_from_slice(data.as_ref()))
    }

    /// Something to send events by, that others can keep.
    pub fn notifier(&self) -> Notifier {
        Notifier { link: Arc::clone(&self.link) }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.link.peer.id
    }

    /// Whose connection it is, if the upgrade said so.
    pub fn user(&self) -> Option<&UserId> {
        self.link.peer.user.as_ref()
    }
}

impl Drop for SocketIo {
    fn drop(&mut self) {
        self.link.set_handler_knows_end();
        let close = match std::thread::panicking() {
            true => CloseFrame::new(CloseCode::INTERNAL_ERROR, "the connection's handler failed"),
            false => CloseFrame::new(CloseCode::NORMAL, "the connection's handler is done"),
        };
        self.link.peer.outbox.close(close);
    }
}

/// Sends events to one client. Cheap to clone; does not keep the connection open.
#[derive(Clone)]
pub struct Notifier {
    link: Arc<Link>,
}

impl Notifier {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// As [`SocketIo::notify`]; to a connection that has ended, without an error for a second more, since
    /// nobody tells those who keep a notifier.
    ///
    /// # Errors
    /// As [`SocketIo::notify`].
    pub async fn notify(&self, event: &str, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        let_others_run().await;
        self.link.notify_from_afar(event, Bytes::copy_from_slice(data.as_ref()))
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notifier").field(&self.link.peer.id).finish()
    }
}

/// For a loop that only notifies.
async fn let_others_run() {
    tokio::task::consume_budget().await;
}

/// Hands everything to a [`SocketIo`].
#[derive(Debug)]
pub(crate) struct LoopApp {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) method: Arc<MethodMetrics>,
}

impl LoopApp {
    fn check_room(&self) -> Result<(), CallError> {
        let waiting = "too many requests wait for this connection's handler";
        self.inbox.has_room().then_some(()).ok_or_else(|| CallError::new(Code::ResourceExhausted, waiting))
    }
}

impl App for LoopApp {
    fn on_notify(&mut self, link: &Arc<Link>, name: Name, payload: Bytes) -> Result<(), CloseFrame> {
        let cost = notification_cost(&name, &payload);
        if !Permit::fits(link, cost) || !self.inbox.has_room() {
            return Err(overloaded());
        }
        let permit = Permit::take(link, cost);
        self.inbox.push(Procedure::Notify(Message { name, payload }), Some(permit));
        Ok(())
    }

    fn on_request(&mut self, link: &Arc<Link>, id: CallId, name: Name, payload: Bytes) -> Result<(), CloseFrame> {
        let call = Call::new(Arc::clone(&self.method), Arc::clone(&link.metrics));
        let cost = call_cost(&name, &payload);
        let admitted = link.admit_call(id, cost)?;
        match admitted.and_then(|()| self.check_room()) {
            Ok(()) => {
                let responder = link.start_call(id, &call, cost);
                let message = Message { name, payload };
                self.inbox.push(Procedure::Call(message, Response(responder), Cancel::new(&call)), None);
            }
            Err(refusal) => link.answer_at_once(id, &call, Err(refusal)),
        }
        Ok(())
    }
}
