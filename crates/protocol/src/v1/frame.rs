//! The frames, and how they are encoded and decoded.
//!
//! Integers are big-endian. A binary WebSocket message contains exactly one frame. `str8` is a text
//! with its length in one byte, `str16` one with its length in two bytes, and `rest` everything up to
//! the end of the message.

use bytes::{BufMut, Bytes, BytesMut};

use crate::call_table::CallId;
use crate::frame::Name;
use crate::v1::call::Call;
use crate::v1::cursor::{Cursor, put_name};
use crate::v1::failure::Error;
use crate::v1::side::Side;
use crate::v1::text::Reason;
use crate::v1::violation::MalformedFrame;

/// A frame. Its texts and its payload share the memory of the message that contained them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// `01` name:str8 payload:rest. An event, which has no response.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// `02` id:u32 name:str8 payload:rest. A call without deadline, credit and headers.
    Request {
        /// The call's id.
        id: CallId,
        /// The method's name.
        name: Name,
        /// The arguments.
        payload: Bytes,
    },
    /// `03` id:u32 reason:rest. Cancels a call.
    Reset {
        /// The call's id.
        id: CallId,
        /// Why, for people. It may be empty.
        reason: Reason,
    },
    /// `04` id:u32 payload:rest. Ends a call with success.
    Response {
        /// The call's id.
        id: CallId,
        /// The result.
        payload: Bytes,
    },
    /// `05` id:u32 code:u8 flags:u8 retry_after_ms:u32 message:str16 details:rest. Ends a call with a
    /// failure.
    Error {
        /// The call's id.
        id: CallId,
        /// Why the call failed.
        error: Error,
    },
    /// `06` id:u32 payload:rest. One element of a streaming result.
    Item {
        /// The call's id.
        id: CallId,
        /// The element.
        payload: Bytes,
    },
    /// `07` id:u32 items:u32. The caller accepts this many more Items.
    Credit {
        /// The call's id.
        id: CallId,
        /// The number of Items. [`u32::MAX`] is unlimited.
        items: u32,
    },
    /// `08` id:u32 flags:u8 deadline_ms:u32 credit:u32 name:str8 headers:str16 payload:rest. A call with
    /// everything that a call can have.
    Call {
        /// The call's id.
        id: CallId,
        /// The call.
        call: Call,
    },
    /// `09`. An event of a room. Only servers send it.
    Event(Event),
    /// `0A` room:u64 from:u64 to:u64. These events are lost for the connection. Only servers send it.
    Gap {
        /// The room's number on this node.
        room: u64,
        /// The offset of the first lost event.
        from: u64,
        /// The offset of the last lost event.
        to: u64,
    },
    /// `0B` JSON:rest. The first frame of a connection. Only servers send it.
    Welcome {
        /// A JSON object.
        json: Reason,
    },
    /// `0C` retry_after_ms:u32 deadline_ms:u32 reason:rest. The client moves to another node. Only
    /// servers send it.
    Goaway {
        /// When the client opens its next connection, in milliseconds from now.
        retry_after_ms: u32,
        /// When the node closes this connection, in milliseconds from now.
        deadline_ms: u32,
        /// Why, for people.
        reason: Reason,
    },
    /// `0D` id:u32 stream:str8. The call continues under this name if the connection ends. Only servers
    /// send it.
    Detached {
        /// The call's id.
        id: CallId,
        /// The name of the stream.
        stream: Name,
    },
    /// `0E` room:u64 offset:u64 epoch:str8 name:str8. Precedes the first Event of a membership and of
    /// each new epoch. Only servers send it.
    Room {
        /// The room's number on this node.
        room: u64,
        /// The offset of the last event before the membership or the epoch.
        offset: u64,
        /// The epoch.
        epoch: Name,
        /// The room's name.
        name: Name,
    },
    /// `0F` room:u64 reason:rest. A membership has ended. Only servers send it.
    Left {
        /// The room's number on this node.
        room: u64,
        /// Why, for people.
        reason: Reason,
    },
    /// `10`. Shows that the connection is alive. Only servers send it.
    Tick,
}

/// `09` room:u64 offset:u64 sender:str8 name:str8 payload:rest. An event of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The room's number on this node.
    pub room: u64,
    /// The event's offset in the room's epoch.
    pub offset: u64,
    /// Who published the event: a connection, and perhaps its user. Empty for events of servers.
    pub sender: Name,
    /// The event's name.
    pub name: Name,
    /// The event's payload.
    pub payload: Bytes,
}

/// What an opcode means: the frame's name, and whether clients send the frame.
const KINDS: [(&str, bool); 16] = [
    ("Notify", true),
    ("Request", true),
    ("Reset", true),
    ("Response", true),
    ("Error", true),
    ("Item", true),
    ("Credit", true),
    ("Call", true),
    ("Event", false),
    ("Gap", false),
    ("Welcome", false),
    ("Goaway", false),
    ("Detached", false),
    ("Room", false),
    ("Left", false),
    ("Tick", false),
];

impl Frame {
    /// Decodes the frame in a complete WebSocket message.
    ///
    /// # Errors
    /// Returns [`MalformedFrame`] if the message is not a frame, or if this side does not send it.
    pub fn decode(message: Bytes, side: Side) -> Result<Self, MalformedFrame> {
        let opcode = *message.first().ok_or(MalformedFrame::Empty)?;
        let known = usize::from(opcode).checked_sub(1).and_then(|at| KINDS.get(at));
        let (kind, by_clients) = *known.ok_or(MalformedFrame::UnknownOpcode(opcode))?;
        if side == Side::Client && !by_clients {
            return Err(MalformedFrame::WrongDirection { kind });
        }
        let mut fields = Cursor::new(kind, message);
        let id = |fields: &mut Cursor| fields.u32().map(CallId);
        Ok(match opcode {
            0x01 => Self::Notify { name: fields.name()?, payload: fields.rest() },
            0x02 => Self::Request { id: id(&mut fields)?, name: fields.name()?, payload: fields.rest() },
            0x03 => Self::Reset { id: id(&mut fields)?, reason: fields.reason()? },
            0x04 => Self::Response { id: id(&mut fields)?, payload: fields.rest() },
            0x05 => Self::Error { id: id(&mut fields)?, error: Error::decode(fields)? },
            0x06 => Self::Item { id: id(&mut fields)?, payload: fields.rest() },
            0x07 => {
                let (id, items) = (id(&mut fields)?, fields.u32()?);
                fields.end()?;
                Self::Credit { id, items }
            }
            0x08 => Self::Call { id: id(&mut fields)?, call: Call::decode(fields)? },
            0x09 => Self::Event(Event {
                room: fields.number()?,
                offset: fields.number()?,
                sender: fields.name()?,
                name: fields.name()?,
                payload: fields.rest(),
            }),
            0x0A => {
                let (room, from, to) = (fields.number()?, fields.number()?, fields.number()?);
                fields.end()?;
                Self::Gap { room, from, to }
            }
            0x0B => Self::Welcome { json: fields.reason()? },
            0x0C => {
                Self::Goaway { retry_after_ms: fields.u32()?, deadline_ms: fields.u32()?, reason: fields.reason()? }
            }
            0x0D => {
                let (id, stream) = (id(&mut fields)?, fields.name()?);
                fields.end()?;
                Self::Detached { id, stream }
            }
            0x0E => {
                let (room, offset) = (fields.number()?, fields.number()?);
                let (epoch, name) = (fields.name()?, fields.name()?);
                fields.end()?;
                Self::Room { room, offset, epoch, name }
            }
            0x0F => Self::Left { room: fields.number()?, reason: fields.reason()? },
            _ => {
                fields.end()?;
                Self::Tick
            }
        })
    }

    /// Creates the frame of a call, in its shortest form.
    pub fn of_call(id: CallId, call: Call) -> Self {
        match call.is_plain() {
            true => Self::Request { id, name: call.name, payload: call.payload },
            false => Self::Call { id, call },
        }
    }

    /// Returns the size in bytes of the last field of a frame that clients send too. It is the only
    /// field whose size is not limited by its layout.
    pub(super) fn payload_len(&self) -> usize {
        match self {
            Self::Notify { payload, .. }
            | Self::Request { payload, .. }
            | Self::Response { payload, .. }
            | Self::Item { payload, .. }
            | Self::Call { call: Call { payload, .. }, .. } => payload.len(),
            Self::Error { error, .. } => error.details.len(),
            Self::Reset { reason, .. } => reason.as_bytes().len(),
            _ => 0,
        }
    }

    /// Appends the encoded frame. Numbers of rooms and offsets must be at most
    /// [`MAX_NUMBER`](crate::v1::MAX_NUMBER).
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Notify { name, payload } => {
                out.put_u8(0x01);
                put_name(out, name);
                out.put_slice(payload);
            }
            Self::Request { id, name, payload } => {
                put_call(out, 0x02, *id);
                put_name(out, name);
                out.put_slice(payload);
            }
            Self::Reset { id, reason } => {
                put_call(out, 0x03, *id);
                out.put_slice(reason.as_bytes());
            }
            Self::Response { id, payload } => {
                put_call(out, 0x04, *id);
                out.put_slice(payload);
            }
            Self::Error { id, error } => {
                put_call(out, 0x05, *id);
                error.encode(out);
            }
            Self::Item { id, payload } => {
                put_call(out, 0x06, *id);
                out.put_slice(payload);
            }
            Self::Credit { id, items } => {
                put_call(out, 0x07, *id);
                out.put_u32(*items);
            }
            Self::Call { id, call } => {
                put_call(out, 0x08, *id);
                call.encode(out);
            }
            Self::Event(event) => event.encode(out),
            Self::Gap { room, from, to } => {
                out.put_u8(0x0A);
                [room, from, to].into_iter().for_each(|number| out.put_u64(*number));
            }
            Self::Welcome { json } => {
                out.put_u8(0x0B);
                out.put_slice(json.as_bytes());
            }
            Self::Goaway { retry_after_ms, deadline_ms, reason } => {
                out.put_u8(0x0C);
                out.put_u32(*retry_after_ms);
                out.put_u32(*deadline_ms);
                out.put_slice(reason.as_bytes());
            }
            Self::Detached { id, stream } => {
                put_call(out, 0x0D, *id);
                put_name(out, stream);
            }
            Self::Room { room, offset, epoch, name } => {
                out.put_u8(0x0E);
                out.put_u64(*room);
                out.put_u64(*offset);
                put_name(out, epoch);
                put_name(out, name);
            }
            Self::Left { room, reason } => {
                out.put_u8(0x0F);
                out.put_u64(*room);
                out.put_slice(reason.as_bytes());
            }
            Self::Tick => out.put_u8(0x10),
        }
    }
}

impl Event {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(0x09);
        out.put_u64(self.room);
        out.put_u64(self.offset);
        put_name(out, &self.sender);
        put_name(out, &self.name);
        out.put_slice(&self.payload);
    }
}

fn put_call(out: &mut BytesMut, opcode: u8, id: CallId) {
    out.put_u8(opcode);
    out.put_u32(id.0);
}
