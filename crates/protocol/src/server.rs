//! The server's end of a connection: it turns bytes into events.

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
    /// An event. Handle events in the order of their arrival. They have no Response.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// A call. Enter it in the [`CallTable`](crate::CallTable).
    Request {
        /// The call's id.
        id: CallId,
        /// The method's name.
        name: Name,
        /// The arguments.
        payload: Bytes,
    },
    /// The client cancels a call.
    Reset {
        /// The call's id.
        id: CallId,
    },
    /// A Ping. Respond with a Pong that has the same payload.
    Ping(Bytes),
    /// A Pong. It needs no response.
    Pong,
    /// The client's Close. Respond with a Close, then end the TCP connection.
    Close(Option<CloseFrame>),
}

/// Decodes a client's bytes and enforces the protocol.
///
/// Pass everything that you read to [`receive`](Self::receive) until it returns `None`. After an
/// error, close the connection with [`Violation::close_frame`] and pass no more bytes. The
/// [`CallTable`](crate::CallTable) tracks the running calls.
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

    /// Returns whether a message is unfinished, for a caller that limits how long it may take.
    pub fn unfinished(&mut self) -> Unfinished {
        self.decoder.unfinished()
    }

    /// Returns how much memory unfinished input takes, in bytes.
    pub fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    /// Skips all further messages. From now on, only Pings, Pongs and a Close are returned.
    pub fn skip_messages(&mut self) {
        self.decoder.skip_messages();
    }

    /// Takes bytes from the front of `input` until an event is complete. Returns `None` when
    /// `input` is used up.
    ///
    /// # Errors
    /// Returns [`Violation`] if the client violated the protocol.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        let Some(incoming) = self.decoder.decode(input)? else { return Ok(None) };
        match incoming {
            Incoming::Binary(message) => self.event(message).map(Some),
            Incoming::Text(_) => Err(Violation::TextMessage),
            Incoming::Ping(payload) => Ok(Some(Event::Ping(payload))),
            Incoming::Pong(_) => Ok(Some(Event::Pong)),
            Incoming::Close(close) => Ok(Some(Event::Close(close))),
        }
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
