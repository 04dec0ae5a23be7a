//! Why a connection ends: the close codes, their meaning, and whether the client may reconnect.

use std::fmt;

/// A WebSocket close code (RFC 6455, section 7.4).
///
/// | code | constant | meaning | may the client reconnect? |
/// |---|---|---|---|
/// | 1000 | [`NORMAL`](Self::NORMAL) | normal closure | no |
/// | 1001 | [`GOING_AWAY`](Self::GOING_AWAY) | the node is draining, or the user left the page | yes |
/// | 1002 | [`PROTOCOL_ERROR`](Self::PROTOCOL_ERROR) | a frame was malformed | no |
/// | 1003 | [`UNSUPPORTED_DATA`](Self::UNSUPPORTED_DATA) | the client sent a text message | no |
/// | 1007 | [`INVALID_DATA`](Self::INVALID_DATA) | a name or text was not UTF-8 | no |
/// | 1008 | [`POLICY_VIOLATION`](Self::POLICY_VIOLATION) | the client was not allowed to connect, or a message took too long | no |
/// | 1009 | [`TOO_BIG`](Self::TOO_BIG) | a payload was over the maximum, or a message had too many fragments | no |
/// | 1011 | [`INTERNAL_ERROR`](Self::INTERNAL_ERROR) | the server failed | yes |
/// | 1013 | [`TRY_AGAIN_LATER`](Self::TRY_AGAIN_LATER) | the node is overloaded | yes, later |
/// | 4401 | [`TOKEN_EXPIRED`](Self::TOKEN_EXPIRED) | the client's token expired or was revoked | yes, with a new token |
/// | 4408 | [`SLOW_CONSUMER`](Self::SLOW_CONSUMER) | the client left too much output unread | yes |
/// | 4409 | [`DISCONNECTED`](Self::DISCONNECTED) | an operator or a backend disconnected the client | no |
///
/// ```
/// # use roomcast_protocol as roomcast;
/// use roomcast::CloseCode;
///
/// assert!(CloseCode::GOING_AWAY.may_reconnect());
/// assert!(CloseCode(4000).is_valid_on_the_wire(), "4000 to 4999 are the application's");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// A normal closure.
    pub const NORMAL: Self = Self(1000);
    /// The node is draining, or the user left the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// A frame was malformed, at the WebSocket layer or above it.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The client sent a text message. The protocol is binary.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// A name, a text message or a close reason was not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The connect handler refused the connection, or a message took too long.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A payload was over the maximum, or a message had too many fragments.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The node is overloaded. The client may reconnect later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// The client's token expired or was revoked.
    pub const TOKEN_EXPIRED: Self = Self(4401);
    /// The client left too much output unread.
    pub const SLOW_CONSUMER: Self = Self(4408);
    /// An operator or a backend disconnected the client.
    pub const DISCONNECTED: Self = Self(4409);

    /// Returns whether a client may reconnect automatically with its current credentials.
    pub fn may_reconnect(self) -> bool {
        matches!(self, Self::GOING_AWAY | Self::INTERNAL_ERROR | Self::TRY_AGAIN_LATER | Self::SLOW_CONSUMER)
    }

    /// Returns whether a Close frame may contain the code (RFC 6455, sections 7.4.1 and 7.4.2).
    pub fn is_valid_on_the_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The body of a Close frame.
///
/// ```
/// # use roomcast_protocol as roomcast;
/// use roomcast::{CloseCode, CloseFrame};
///
/// let close = CloseFrame::new(CloseCode::DISCONNECTED, "your account was suspended");
/// assert_eq!(close.code.0, 4409);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// The close code.
    pub code: CloseCode,
    /// A reason for people. At most 123 bytes of it are sent.
    pub reason: String,
}

impl CloseFrame {
    /// Creates a Close frame's body from a code and a reason.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted and escaped: a peer's reason may contain line breaks and control characters.
        write!(f, "{} {:?}", self.code, self.reason)
    }
}
