//! Why a message is not a frame.

use thiserror::Error;

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
