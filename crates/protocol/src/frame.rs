//! The four frames, and how they are encoded and decoded.
//!
//! | frame | layout | sent by |
//! |---|---|---|
//! | Notify | `01` name_len:u8 name payload | both |
//! | Request | `02` id:u32 name_len:u8 name payload | client |
//! | Reset | `03` id:u32 | client |
//! | Response | `04` id:u32 payload | server |
//!
//! Integers are big-endian. A binary WebSocket message contains exactly one frame.

use std::fmt;
use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::call_table::CallId;
use crate::error::MalformedFrame;

/// The longest name, in bytes. A frame encodes a name's length in one byte.
pub const MAX_NAME_LEN: usize = u8::MAX as usize;

const NOTIFY: u8 = 1;
const REQUEST: u8 = 2;
const RESET: u8 = 3;
const RESPONSE: u8 = 4;

const ID_LEN: usize = 4;

/// The name of an event or a method, as UTF-8 of 0 to 255 bytes. Clones share the bytes.
///
/// ```
/// # use roomcast_protocol as roomcast;
/// use roomcast::Name;
///
/// let name = Name::new("chat/send")?;
/// assert_eq!((name.as_str(), name.len()), ("chat/send", 9));
/// # Ok::<(), roomcast::NameError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Name(Bytes);

/// The error of a name that is too long for a frame.
///
/// ```
/// # use roomcast_protocol as roomcast;
/// use roomcast::Name;
///
/// assert_eq!(Name::new(&"x".repeat(256)).unwrap_err().len, 256);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("a name has at most {MAX_NAME_LEN} bytes, not {len}")]
pub struct NameError {
    /// The name's length in bytes.
    pub len: usize,
}

impl Name {
    /// Creates a name in memory of its own.
    ///
    /// # Errors
    /// Returns [`NameError`] if the name is longer than 255 bytes.
    pub fn new(name: &str) -> Result<Self, NameError> {
        match name.len() {
            0..=MAX_NAME_LEN => Ok(Self(Bytes::copy_from_slice(name.as_bytes()))),
            len => Err(NameError { len }),
        }
    }

    /// Creates a name that shares the memory of the message that contained it. Returns `None` if
    /// the name is too long or not UTF-8.
    pub fn from_bytes(name: Bytes) -> Option<Self> {
        (name.len() <= MAX_NAME_LEN && std::str::from_utf8(&name).is_ok()).then_some(Self(name))
    }

    /// Returns a copy in memory of its own. A name that is kept would keep its whole message, or even
    /// the buffer that contained the message.
    pub(crate) fn unshared(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Returns the name's bytes. Unlike [`as_str`](Self::as_str), this does not check again that
    /// they are UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the name was made")
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A frame that borrows from its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRef<'a> {
    /// A frame like [`Frame::Notify`].
    Notify {
        /// The event's name.
        name: &'a str,
        /// The event's payload.
        payload: &'a [u8],
    },
    /// A frame like [`Frame::Request`].
    Request {
        /// The call's id.
        id: CallId,
        /// The method's name.
        name: &'a str,
        /// The arguments.
        payload: &'a [u8],
    },
    /// A frame like [`Frame::Reset`].
    Reset {
        /// The call's id.
        id: CallId,
    },
    /// A frame like [`Frame::Response`].
    Response {
        /// The call's id.
        id: CallId,
        /// The Response's payload.
        payload: &'a [u8],
    },
}

impl<'a> FrameRef<'a> {
    /// Decodes the frame in a complete WebSocket message.
    ///
    /// # Errors
    /// Returns [`MalformedFrame`] if the message is not a frame.
    pub fn decode(message: &'a [u8]) -> Result<Self, MalformedFrame> {
        let Layout { opcode, id, name_at, payload_at } = Layout::read(message)?;
        let payload = &message[payload_at..];
        let name = str::from_utf8(&message[name_at..payload_at]).expect("checked when the layout was read");
        Ok(match opcode {
            NOTIFY => Self::Notify { name, payload },
            REQUEST => Self::Request { id, name, payload },
            RESET => Self::Reset { id },
            _ => Self::Response { id, payload },
        })
    }
}

/// The positions of a frame's parts in its message.
struct Layout {
    /// One of the four opcodes.
    opcode: u8,
    /// The call's id, or 0 if the frame has none.
    id: CallId,
    /// The name is UTF-8 and ends where the payload begins. It is empty if the frame has none.
    name_at: usize,
    payload_at: usize,
}

impl Layout {
    fn read(message: &[u8]) -> Result<Self, MalformedFrame> {
        let opcode = *message.first().ok_or(MalformedFrame::Empty)?;
        let kind = match opcode {
            NOTIFY => "Notify",
            REQUEST => "Request",
            RESET => "Reset",
            RESPONSE => "Response",
            other => return Err(MalformedFrame::UnknownOpcode(other)),
        };
        let truncated = |needed| MalformedFrame::Truncated { kind, needed, got: message.len() };
        let mut header_len = 1;
        let mut id = CallId(0);
        if opcode != NOTIFY {
            let bytes = message[header_len..].first_chunk().ok_or(truncated(header_len + ID_LEN))?;
            id = CallId(u32::from_be_bytes(*bytes));
            header_len += ID_LEN;
        }
        match opcode {
            RESET if message.len() > header_len => Err(MalformedFrame::OverlongReset(message.len())),
            RESET | RESPONSE => Ok(Self { opcode, id, name_at: header_len, payload_at: header_len }),
            _ => {
                let name_len = *message.get(header_len).ok_or(truncated(header_len + 1))? as usize;
                let name_at = header_len + 1;
                let payload_at = name_at + name_len;
                let name = message.get(name_at..payload_at).ok_or(truncated(payload_at))?;
                str::from_utf8(name).map_err(|_| MalformedFrame::NameNotUtf8 { kind })?;
                Ok(Self { opcode, id, name_at, payload_at })
            }
        }
    }
}

/// A frame. Its name and payload share the memory of the message that contained them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event, which has no Response.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// A call. Exactly one Response follows, unless the client cancels the call first.
    Request {
        /// The call's id.
        id: CallId,
        /// The method's name.
        name: Name,
        /// The arguments.
        payload: Bytes,
    },
    /// Cancels a call.
    Reset {
        /// The call's id.
        id: CallId,
    },
    /// The Response to a call.
    Response {
        /// The call's id.
        id: CallId,
        /// The Response's payload.
        payload: Bytes,
    },
}

impl Frame {
    /// Decodes the frame in a complete WebSocket message.
    ///
    /// # Errors
    /// Returns [`MalformedFrame`] if the message is not a frame.
    pub fn decode(mut message: Bytes) -> Result<Self, MalformedFrame> {
        let Layout { opcode, id, name_at, payload_at } = Layout::read(&message)?;
        let payload = message.split_off(payload_at);
        let mut name = || Name(message.split_off(name_at));
        Ok(match opcode {
            NOTIFY => Self::Notify { name: name(), payload },
            REQUEST => Self::Request { id, name: name(), payload },
            RESET => Self::Reset { id },
            _ => Self::Response { id, payload },
        })
    }

    /// Returns the frame's encoded size in bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Notify { name, payload } => 2 + name.0.len() + payload.len(),
            Self::Request { name, payload, .. } => 2 + ID_LEN + name.0.len() + payload.len(),
            Self::Reset { .. } => 1 + ID_LEN,
            Self::Response { payload, .. } => 1 + ID_LEN + payload.len(),
        }
    }

    /// Appends the encoded frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Notify { name, payload } => {
                out.put_u8(NOTIFY);
                put_name(out, name);
                out.put_slice(payload);
            }
            Self::Request { id, name, payload } => {
                out.put_u8(REQUEST);
                out.put_u32(id.0);
                put_name(out, name);
                out.put_slice(payload);
            }
            Self::Reset { id } => {
                out.put_u8(RESET);
                out.put_u32(id.0);
            }
            Self::Response { id, payload } => {
                out.put_u8(RESPONSE);
                out.put_u32(id.0);
                out.put_slice(payload);
            }
        }
    }

    /// Returns the size of the frame's payload in bytes.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Notify { payload, .. } | Self::Request { payload, .. } | Self::Response { payload, .. } => {
                payload.len()
            }
            Self::Reset { .. } => 0,
        }
    }
}

fn put_name(out: &mut BytesMut, name: &Name) {
    out.put_u8(u8::try_from(name.0.len()).expect("a name has at most 255 bytes"));
    out.put_slice(&name.0);
}
