//! How a peer violated the protocol. Each violation has a close code, and its text is the close
//! reason.

use thiserror::Error;

use crate::call_table::CallId;
use crate::close::{CloseCode, CloseFrame};
use crate::error::WebSocketError;
use crate::v1::limits::MAX_ROOMS;

/// A message that is not a frame of `roomcast.v1`. Whoever receives it closes the connection with
/// 1002.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MalformedFrame {
    /// An empty message.
    #[error("an empty message is not a frame")]
    Empty,
    /// An opcode that the protocol does not define.
    #[error("unknown opcode {0:#04x}; the opcodes are 0x01 to 0x10")]
    UnknownOpcode(u8),
    /// A frame that only servers send, from a client.
    #[error("only a server sends {kind} frames")]
    WrongDirection {
        /// The frame's name.
        kind: &'static str,
    },
    /// A frame that ends before its fields are complete.
    #[error("truncated {kind}: its fields need {needed} bytes, but the message has {got}")]
    Truncated {
        /// The frame's name.
        kind: &'static str,
        /// How many bytes the fields need, according to the part of them that arrived.
        needed: usize,
        /// How many bytes the message has.
        got: usize,
    },
    /// Bytes after the last field of a frame that has no payload.
    #[error("a {kind} frame has {expected} bytes, not {got}")]
    Trailing {
        /// The frame's name.
        kind: &'static str,
        /// How many bytes the frame has.
        expected: usize,
        /// How many bytes the message has.
        got: usize,
    },
    /// A text that is not UTF-8.
    #[error("a text of the {kind} is not UTF-8")]
    NotUtf8 {
        /// The frame's name.
        kind: &'static str,
    },
    /// A number of 2^53 or more, which JavaScript cannot represent.
    #[error("a number of the {kind} is {number}; numbers are less than 2^53")]
    NumberTooLarge {
        /// The frame's name.
        kind: &'static str,
        /// The number.
        number: u64,
    },
}

/// A violation of the protocol, for which the side that receives it closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A violation of RFC 6455, the layer below the protocol.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// A message that is not a frame.
    #[error(transparent)]
    Malformed(#[from] MalformedFrame),
    /// A text message.
    #[error("received a text message, but the protocol is binary")]
    TextMessage,
    /// A payload, a reason or the details of an error over the maximum.
    #[error("a payload of {size} bytes exceeds the maximum of {max}")]
    PayloadTooBig {
        /// The payload's size in bytes.
        size: usize,
        /// The maximum, in bytes.
        max: usize,
    },
    /// A call with the id of a call that is still in flight.
    #[error("call id {0} is already in flight")]
    DuplicateCallId(CallId),
    /// A call with an id that only the other side's calls have.
    #[error("call id {0} belongs to the other side; only the ids of the server's calls have the top bit set")]
    ForeignCallId(CallId),
    /// An Item for which the caller gave no credit.
    #[error("an Item of call {0} exceeds the credit")]
    ItemBeyondCredit(CallId),
    /// A Detached frame of a call that did not ask for it, or a second one, or one after an Item.
    #[error("call {0} cannot be detached now")]
    UnexpectedDetached(CallId),
    /// The first frame is not a Welcome.
    #[error("the first frame must be a Welcome")]
    NotWelcome,
    /// A second Welcome.
    #[error("a connection has one Welcome, not two")]
    SecondWelcome,
    /// An Event, a Gap or a Left of a room that no Room frame announced.
    #[error("room {0} was not announced")]
    UnknownRoom(u64),
    /// A Room frame that announces neither a new membership nor a new epoch of the same room.
    #[error("room {0} was announced before, with the same epoch or another name")]
    RoomAnnouncedTwice(u64),
    /// A Room frame for one room too many.
    #[error("a connection has at most {MAX_ROOMS} rooms")]
    TooManyRooms,
    /// An Event that is not later than the previous one, or a Gap that is not later or ends before it
    /// begins.
    #[error("room {room} is at offset {position}; offset {offset} is not later")]
    OffsetNotLater {
        /// The room's number.
        room: u64,
        /// The offset that arrived.
        offset: u64,
        /// The offset that it must exceed.
        position: u64,
    },
}

impl Violation {
    /// Returns the close code for this violation. A client on a platform that does not let it send codes
    /// below 3000, such as a browser, sends 4002 instead.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::WebSocket(error) => error.close_code(),
            Self::PayloadTooBig { .. } => CloseCode::TOO_BIG,
            Self::TextMessage => CloseCode::UNSUPPORTED_DATA,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Returns the Close frame that reports the violation to the peer.
    pub fn close_frame(&self) -> CloseFrame {
        CloseFrame::new(self.close_code(), self.to_string())
    }
}
