//! A call, without its id.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::Name;
use crate::v1::cursor::{Cursor, put_bytes16, put_name};
use crate::v1::headers::EncodedHeaders;
use crate::v1::violation::MalformedFrame;

/// What a caller asks for. [`OutgoingCalls`](crate::v1::OutgoingCalls) assigns the id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// How the call is executed.
    pub flags: CallFlags,
    /// How long the call may take, in milliseconds. 0: no limit.
    pub deadline_ms: u32,
    /// The number of Items that the caller accepts at first. [`u32::MAX`] is unlimited. 0: the result is
    /// one Response; the caller accepts no Items, and cannot accept them later.
    pub credit: u32,
    /// The method's name.
    pub name: Name,
    /// The [`Headers`](crate::v1::Headers).
    pub headers: EncodedHeaders,
    /// The arguments.
    pub payload: Bytes,
}

/// The flags of a [`Call`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFlags(pub u8);

impl CallFlags {
    /// The call continues when its connection ends.
    pub const DETACH: Self = Self(1);

    /// Returns whether all flags of the other value are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether a flag is set that this version of the protocol does not define. The call then
    /// fails with `INVALID_ARGUMENT`.
    pub fn has_unknown(self) -> bool {
        self.0 & !Self::DETACH.0 != 0
    }
}

impl Call {
    /// Creates a call without flags, deadline, credit and headers.
    pub fn new(name: Name, payload: Bytes) -> Self {
        Self { name, payload, ..Self::default() }
    }

    /// Returns how long the call may take, from its receipt. `None`: as long as it needs.
    pub fn deadline(&self) -> Option<Duration> {
        (self.deadline_ms > 0).then(|| Duration::from_millis(self.deadline_ms.into()))
    }

    /// Returns whether the shorter frame Request can represent the call.
    pub(super) fn is_plain(&self) -> bool {
        self.flags == CallFlags::default()
            && self.deadline_ms == 0
            && self.credit == 0
            && self.headers.as_bytes().is_empty()
    }

    /// Decodes the fields after the id.
    pub(super) fn decode(mut fields: Cursor) -> Result<Self, MalformedFrame> {
        Ok(Self {
            flags: CallFlags(fields.u8()?),
            deadline_ms: fields.u32()?,
            credit: fields.u32()?,
            name: fields.name()?,
            headers: fields.headers()?,
            payload: fields.rest(),
        })
    }

    /// Appends the fields after the id.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.flags.0);
        out.put_u32(self.deadline_ms);
        out.put_u32(self.credit);
        put_name(out, &self.name);
        put_bytes16(out, self.headers.as_bytes());
        out.put_slice(&self.payload);
    }
}
