//! The server's end of a connection: it turns bytes into events.

use bytes::Bytes;

use crate::close::CloseFrame;
use crate::frame::Name;
use crate::limits::Limits;
use crate::v1::calls::CallFrame;
use crate::v1::frame::Frame;
use crate::v1::limits::MAX_FRAME_HEADER_LEN;
use crate::v1::side::Side;
use crate::v1::violation::Violation;
use crate::websocket::{Decoder, Incoming, Unfinished};

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// An event. Handle events in the order of their arrival. They have no Response.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// A frame of a call. Pass it to [`Calls::receive`](crate::v1::Calls::receive).
    Call(CallFrame),
    /// A Ping. Respond with a Pong that has the same payload.
    Ping(Bytes),
    /// A Pong. It needs no response.
    Pong,
    /// The client's Close. Respond with a Close, then end the TCP connection.
    Close(Option<CloseFrame>),
}

/// Decodes a client's bytes.
///
/// Pass everything that you read to [`receive`](Self::receive) until it returns `None`. After an
/// error, close the connection with [`Violation::close_frame`] and pass no more bytes.
/// [`Calls`](crate::v1::Calls) is separate, because the tasks that execute calls use it too.
#[derive(Debug)]
pub struct ServerConnection {
    decoder: Decoder,
    max_payload: usize,
}

impl ServerConnection {
    /// Creates the state of a connection whose handshake is done. It holds at most one unfinished
    /// message, of up to `max_payload` and [`MAX_FRAME_HEADER_LEN`] bytes.
    pub fn new(limits: Limits) -> Self {
        let max_message = limits.max_payload.saturating_add(MAX_FRAME_HEADER_LEN);
        Self { decoder: Decoder::new(max_message, limits.max_fragments), max_payload: limits.max_payload }
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
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<ServerEvent>, Violation> {
        let Some(incoming) = self.decoder.decode(input)? else { return Ok(None) };
        match incoming {
            Incoming::Binary(message) => self.event(message).map(Some),
            Incoming::Text(_) => Err(Violation::TextMessage),
            Incoming::Ping(payload) => Ok(Some(ServerEvent::Ping(payload))),
            Incoming::Pong(_) => Ok(Some(ServerEvent::Pong)),
            Incoming::Close(close) => Ok(Some(ServerEvent::Close(close))),
        }
    }

    fn event(&self, message: Bytes) -> Result<ServerEvent, Violation> {
        let frame = Frame::decode(message, Side::Client)?;
        if frame.payload_len() > self.max_payload {
            return Err(Violation::PayloadTooBig { size: frame.payload_len(), max: self.max_payload });
        }
        match CallFrame::from_frame(frame) {
            Ok(frame) => Ok(ServerEvent::Call(frame)),
            Err(Frame::Notify { name, payload }) => Ok(ServerEvent::Notify { name, payload }),
            Err(other) => unreachable!("no client sends {other:?}, which was checked when it was decoded"),
        }
    }
}
