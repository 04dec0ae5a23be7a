//! Why a call failed, without the call's id.

use bytes::{BufMut, Bytes, BytesMut};

use crate::v1::cursor::{Cursor, put_bytes16};
use crate::v1::text::LongText;
use crate::v1::violation::MalformedFrame;

/// A gRPC status code. Codes that this crate does not define are valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// The caller cancelled the call.
    pub const CANCELLED: Self = Self(1);
    /// The call is not valid.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// A limit is reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
}

/// Why a call failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Error {
    /// The gRPC status code.
    pub code: Code,
    /// What the caller can do.
    pub flags: ErrorFlags,
    /// When the caller may repeat the call, in milliseconds from now. 0: no advice.
    pub retry_after_ms: u32,
    /// What went wrong, for people.
    pub message: LongText,
    /// Data of the application, by convention JSON.
    pub details: Bytes,
}

/// The flags of an [`Error`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorFlags(pub u8);

impl ErrorFlags {
    /// The same call may succeed later.
    pub const RETRYABLE: Self = Self(1);
    /// It is unknown whether the call was executed.
    pub const MAYBE_EXECUTED: Self = Self(1 << 1);
    /// The attempt to attach to a stream failed. The stream itself did not.
    pub const ATTACH_FAILED: Self = Self(1 << 2);

    /// Returns whether all flags of the other value are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Error {
    /// Creates an error without flags, advice and details. A message over 65,535 bytes loses its end.
    pub fn new(code: Code, message: &str) -> Self {
        Self { code, message: LongText::truncated(message), ..Self::default() }
    }

    /// Decodes the fields after the id.
    pub(super) fn decode(mut fields: Cursor) -> Result<Self, MalformedFrame> {
        Ok(Self {
            code: Code(fields.u8()?),
            flags: ErrorFlags(fields.u8()?),
            retry_after_ms: fields.u32()?,
            message: fields.text16()?,
            details: fields.rest(),
        })
    }

    /// Appends the fields after the id.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.code.0);
        out.put_u8(self.flags.0);
        out.put_u32(self.retry_after_ms);
        put_bytes16(out, self.message.as_bytes());
        out.put_slice(&self.details);
    }
}
