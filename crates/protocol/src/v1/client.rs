//! The client's end of a connection: it turns messages into events.

use bytes::Bytes;

use crate::frame::Name;
use crate::v1::calls::CallFrame;
use crate::v1::frame::{Event, Frame};
use crate::v1::rooms::{Room, Rooms};
use crate::v1::side::Side;
use crate::v1::text::Reason;
use crate::v1::violation::Violation;

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The first message of a connection.
    Welcome {
        /// A JSON object. Ignore unknown fields.
        json: Reason,
    },
    /// An event.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// A frame of a call. Pass it to [`Calls::receive`](crate::v1::Calls::receive).
    Call(CallFrame),
    /// A membership has begun, or a new epoch of its room. The position is in
    /// [`ClientConnection::rooms`].
    Room {
        /// The room's number.
        room: u64,
    },
    /// An event of a room.
    Event(Event),
    /// Events of a room are lost for this connection.
    Gap {
        /// The room's number.
        room: u64,
        /// The offset of the first lost event.
        from: u64,
        /// The offset of the last lost event.
        to: u64,
    },
    /// A membership has ended.
    Left {
        /// The room's last position.
        room: Room,
        /// Why, for people.
        reason: Reason,
    },
    /// Move to another node.
    Goaway {
        /// When to open the next connection, in milliseconds from now.
        retry_after_ms: u32,
        /// When the node closes this connection, in milliseconds from now.
        deadline_ms: u32,
        /// Why, for people.
        reason: Reason,
    },
    /// The connection is alive.
    Tick,
}

/// Decodes a server's messages, and tracks the position in each room. The caller frames the messages for
/// WebSocket, and limits their size.
///
/// After an error, close the connection with [`Violation::close_frame`] and pass no more messages. The
/// positions remain valid, for the joins on the next connection.
#[derive(Debug, Default)]
pub struct ClientConnection {
    is_welcome: bool,
    rooms: Rooms,
}

impl ClientConnection {
    /// Creates the state of a connection whose handshake is done.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the rooms of this connection.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Reads a binary message.
    ///
    /// # Errors
    /// Returns [`Violation`] if the server violated the protocol.
    pub fn receive(&mut self, message: Bytes) -> Result<ClientEvent, Violation> {
        let frame = Frame::decode(message, Side::Server)?;
        match (&frame, self.is_welcome) {
            (Frame::Welcome { .. }, true) => return Err(Violation::SecondWelcome),
            (Frame::Welcome { .. }, false) => self.is_welcome = true,
            (_, false) => return Err(Violation::NotWelcome),
            (_, true) => {}
        }
        match CallFrame::from_frame(frame) {
            Ok(frame) => Ok(ClientEvent::Call(frame)),
            Err(frame) => self.other(frame),
        }
    }

    fn other(&mut self, frame: Frame) -> Result<ClientEvent, Violation> {
        Ok(match frame {
            Frame::Welcome { json } => ClientEvent::Welcome { json },
            Frame::Notify { name, payload } => ClientEvent::Notify { name, payload },
            Frame::Room { room, offset, epoch, name } => {
                self.rooms.announce(room, Room { name: name.unshared(), epoch: epoch.unshared(), offset })?;
                ClientEvent::Room { room }
            }
            Frame::Event(event) => {
                self.rooms.advance(event.room, event.offset, event.offset)?;
                ClientEvent::Event(event)
            }
            Frame::Gap { room, from, to } => {
                self.rooms.advance(room, from, to)?;
                ClientEvent::Gap { room, from, to }
            }
            Frame::Left { room, reason } => ClientEvent::Left { room: self.rooms.leave(room)?, reason },
            Frame::Goaway { retry_after_ms, deadline_ms, reason } => {
                ClientEvent::Goaway { retry_after_ms, deadline_ms, reason }
            }
            Frame::Tick => ClientEvent::Tick,
            frame => unreachable!("{frame:?} belongs to a call"),
        })
    }
}
