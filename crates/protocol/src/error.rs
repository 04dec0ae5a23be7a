//! How a peer violated the protocol. Each violation has a close code, and its text is the close
//! reason.

use thiserror::Error;

use crate::call_table::CallId;
use crate::close::{CloseCode, CloseFrame};

/// A message that is not a frame of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MalformedFrame {
    /// An empty message.
    #[error("an empty message is not a frame")]
    Empty,
    /// An opcode that the protocol does not define.
    #[error("unknown opcode {0:#04x}; the opcodes are 0x01 Notify, 0x02 Request, 0x03 Reset and 0x04 Response")]
    UnknownOpcode(u8),
    /// A frame that only clients send.
    #[error("only a client sends {kind} frames")]
    FromServer {
        /// The frame's name.
        kind: &'static str,
    },
    /// A frame that ends before its header is complete.
    #[error("truncated {kind}: its header needs {needed} bytes, but the message has {got}")]
    Truncated {
        /// The frame's name.
        kind: &'static str,
        /// How many bytes the header needs, according to the part of it that arrived.
        needed: usize,
        /// How many bytes the message has.
        got: usize,
    },
    /// A Reset with bytes after its id.
    #[error("a Reset frame has 5 bytes, not {0}")]
    OverlongReset(usize),
    /// A name that is not UTF-8.
    #[error("the name of the {kind} is not UTF-8")]
    NameNotUtf8 {
        /// The frame's name.
        kind: &'static str,
    },
}

/// A violation of RFC 6455.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A reserved bit is set, but no extension was negotiated (section 5.2).
    #[error("a reserved bit (RSV) is set, but no extension was negotiated")]
    ReservedBit,
    /// RFC 6455 reserves the opcode (section 5.2).
    #[error("reserved WebSocket opcode {0:#x}")]
    ReservedOpcode(u8),
    /// A client's frame is not masked (section 5.1).
    #[error("a client must mask its frames")]
    Unmasked,
    /// A server's frame is masked (section 5.1).
    #[error("a server must not mask its frames")]
    MaskedByServer,
    /// A message is fragmented, which the client's decoder does not support.
    #[error("received a fragmented message, which no Roomcast node sends")]
    Fragmented,
    /// A control frame is fragmented (section 5.4).
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    /// A control frame's payload is over 125 bytes (section 5.5).
    #[error("a control frame carries at most 125 bytes; this frame announces more")]
    ControlTooLong,
    /// A continuation frame arrived, but there is no message to continue (section 5.4).
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A new message began before the last fragment of the previous one (section 5.4).
    #[error("a new message began before the last fragment of the previous one")]
    UnfinishedMessage,
    /// A payload length is not in its shortest form (section 5.2).
    #[error("a payload length must be encoded in as few bytes as possible")]
    NonMinimalLength,
    /// A message, including all its fragments, is over the maximum. The decoder checks this as soon
    /// as it has a frame's header.
    #[error("a message of {size} bytes exceeds the maximum of {max}")]
    MessageTooBig {
        /// The payload length in the header, plus the size of the earlier fragments.
        size: u64,
        /// The largest message allowed.
        max: usize,
    },
    /// A message has more fragments than allowed, counting empty ones.
    #[error("a message may have at most {max} fragments")]
    TooManyFragments {
        /// The maximum number of fragments.
        max: u32,
    },
    /// A text message is not UTF-8 (section 8.1).
    #[error("a text message must be UTF-8")]
    TextNotUtf8,
    /// A Close frame has a body of one byte, or a code that must not be sent (section 7.4).
    #[error("the Close frame's body is not valid")]
    InvalidClose,
    /// A Close frame's reason is not UTF-8 (section 5.5.1).
    #[error("the Close frame's reason is not UTF-8")]
    CloseReasonNotUtf8,
}

impl WebSocketError {
    /// Returns the close code for this violation.
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::MessageTooBig { .. } | Self::TooManyFragments { .. } => CloseCode::TOO_BIG,
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 => CloseCode::INVALID_DATA,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// A client's violation of the protocol, for which the server closes the connection.
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
    /// A payload over the maximum.
    #[error("a payload of {size} bytes exceeds the maximum of {max}")]
    PayloadTooBig {
        /// The payload's size in bytes.
        size: usize,
        /// The maximum, in bytes.
        max: usize,
    },
    /// A frame that only the server sends.
    #[error("only the server sends Response frames")]
    UnexpectedResponse,
    /// A second Request with the id of a call that is still running.
    #[error("call id {0} is already in flight")]
    DuplicateCallId(CallId),
}

impl Violation {
    /// Returns the close code for this violation.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::WebSocket(error) => error.close_code(),
            Self::PayloadTooBig { .. } => CloseCode::TOO_BIG,
            Self::Malformed(MalformedFrame::NameNotUtf8 { .. }) => CloseCode::INVALID_DATA,
            Self::TextMessage => CloseCode::UNSUPPORTED_DATA,
            Self::Malformed(_) | Self::UnexpectedResponse | Self::DuplicateCallId(_) => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Returns the Close frame that reports the violation to the client.
    pub fn close_frame(&self) -> CloseFrame {
        CloseFrame::new(self.close_code(), self.to_string())
    }
}
