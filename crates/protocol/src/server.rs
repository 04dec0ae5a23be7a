//! The server's end of a connection: bytes in, events out.

use bytes::Bytes;

use crate::call_table::CallId;
use crate::close::CloseFrame;
use crate::error::Violation;
use crate::frame::{Frame, Name};
use crate::limits::Limits;
use crate::websocket::{Decoder, Incoming, Unfinished};

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An event, to be handled in the order of arrival. It has no Response.
    Notify {
        /// The event's name.
        name: Name,
        /// Its bytes.
        payload: Bytes,
    },
    /// A call, to be entered in the [`CallTable`](crate::CallTable).
    Request {
        /// The call.
        id: CallId,
        /// The method.
        name: Name,
        /// The arguments' bytes.
        payload: Bytes,
    },
    /// The client cancels a call.
    Reset {
        /// The call.
        id: CallId,
    },
    /// Respond with a Pong of the same payload.
    Ping(Bytes),
    /// The client closes: respond with a Close, then end the TCP connection.
    Close(Option<CloseFrame>),
}

/// Reads a client's bytes and holds it to the protocol.
///
/// Feed every read to [`receive`](Self::receive) until it returns `None`. After an error, close with
/// [`Violation::close_frame`] and feed it nothing more. Which calls run is not its business but the
/// [`CallTable`](crate::CallTable)'s, because responses come from elsewhere than bytes do.
#[derive(Debug)]
pub struct ServerConnection {
    decoder: Decoder,
    max_payload: usize,
}

impl ServerConnection {
    /// Creates the state of a connection whose handshake is done.
    pub fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits.max_message(), limits.max_fragments), max_payload: limits.max_payload }
    }

    /// Whether a message is unfinished, for a caller that limits its time.
    pub fn unfinished(&mut self) -> Unfinished {
        self.decoder.unfinished()
    }

    /// Returns the memory that unfinished input takes, in bytes.
    pub fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    /// Skips all further messages: only Pings and a Close are returned.
    pub fn skip_messages(&mut self) {
        self.decoder.skip_messages();
    }

    /// Takes bytes from the front of `input` until an event is complete. Returns `None` once `input` is used up.
    ///
    /// # Errors
    /// Returns [`Violation`] if the client broke the protocol.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        while let Some(incoming) = self.decoder.decode(input)? {
            match incoming {
                Incoming::Binary(message) => return self.event(message).map(Some),
                Incoming::Text(_) => return Err(Violation::TextMessage),
                Incoming::Ping(payload) => return Ok(Some(Event::Ping(payload))),
                Incoming::Close(close) => return Ok(Some(Event::Close(close))),
                Incoming::Pong(_) => {}
            }
        }
        Ok(None)
    }

    fn event(&self, message: Bytes) -> Result<Event, Violation> {
        let frame = Frame::decode(message)?;
        if frame.payload_len() > self.max_payload {
            return Err(Violation::PayloadTooBig { size: frame.payload_len(), max: self.max_payload });
        }
        match frame {
            Frame::Notify { name, payload } => Ok(Event::Notify { name, payload }),
            Frame::Request { id, name, payload } => Ok(Event::Request { id, name, payload }),
            Frame::Reset { id } => Ok(Event::Reset { id }),
            Frame::Response { .. } => Err(Violation::UnexpectedResponse),
        }
    }
}
