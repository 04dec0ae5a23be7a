//! What the loop of the tutorial receives.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::Name;

use crate::call::cancel::Cancel;
use crate::connection::responder::Responder;
use crate::error::{CallError, NotifyError};
use crate::tutorial::end_known::EndKnown;

/// What a client sends. See [`SocketIo`](crate::SocketIo) for an example.
#[derive(Debug)]
pub enum Procedure {
    /// A notification, which has no response.
    Notify(Message),
    /// A call: its name and payload, the right to answer it, and its cancellation. Dropping the [`Response`] unused
    /// answers with an error.
    Call(Message, Response, Cancel),
}

/// A name and its payload. See [`SocketIo`](crate::SocketIo) for an example.
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

/// The right to answer one call, once. See [`SocketIo`](crate::SocketIo) for an example.
#[derive(Debug)]
pub struct Response {
    pub(super) responder: Responder,
    pub(super) end_known: EndKnown,
}

impl Response {
    /// Answers the call. If it was cancelled meanwhile, this sends nothing and succeeds.
    ///
    /// The response is queued without waiting for the client.
    ///
    /// # Errors
    /// [`NotifyError::Closed`] once the connection has ended and this is known.
    ///
    /// # Cancel safety
    /// A future that is dropped unpolled answers with an error, as the unused [`Response`] does.
    pub async fn send(self, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        self.finish(Ok(Bytes::copy_from_slice(data.as_ref())))
    }

    /// Answers the call with an error.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
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
