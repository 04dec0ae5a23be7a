//! The calls and notifications that the tutorial's loop receives.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::Name;

use crate::call::cancel::Cancel;
use crate::connection::responder::Responder;
use crate::error::{CallError, NotifyError};
use crate::tutorial::end_known::EndKnown;

/// A call or notification of a client. See [`SocketIo`](crate::SocketIo) for an example.
#[derive(Debug)]
pub enum Procedure {
    /// A notification, which has no response.
    Notify(Message),
    /// A call: its name and payload, the handle that answers it, and its cancellation. If you drop
    /// the [`Response`] unused, the call fails with an error.
    Call(Message, Response, Cancel),
}

/// The name and payload of a call or notification. See [`SocketIo`](crate::SocketIo) for an
/// example.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) name: Name,
    pub(super) payload: Bytes,
}

impl Message {
    /// Returns the name of the method or event.
    pub fn method(&self) -> &str {
        &self.name
    }

    /// Returns the payload.
    pub fn data(&self) -> &[u8] {
        &self.payload
    }
}

/// Answers one call, once. See [`SocketIo`](crate::SocketIo) for an example.
#[derive(Debug)]
pub struct Response {
    pub(super) responder: Responder,
    pub(super) end_known: EndKnown,
}

impl Response {
    /// Answers the call. If the call was cancelled meanwhile, this sends nothing and succeeds.
    ///
    /// The response is queued without waiting for the client.
    ///
    /// # Errors
    /// Returns [`NotifyError::Closed`] if the connection has ended and the loop has received its
    /// end, or if it ended more than one second ago.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is polled, the call fails with an error, as if the
    /// [`Response`] was dropped unused.
    pub async fn send(self, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        self.finish(Ok(Bytes::copy_from_slice(data.as_ref())))
    }

    /// Answers the call with an error.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn fail(self, error: CallError) -> Result<(), NotifyError> {
        self.finish(Err(error))
    }

    fn finish(self, result: Result<Bytes, CallError>) -> Result<(), NotifyError> {
        let context = Arc::clone(self.responder.context());
        self.responder.answer(result);
        match self.end_known.get() || context.ended_long_ago() {
            true => Err(NotifyError::Closed),
            false => Ok(()),
        }
    }
}
