//! Reads the fields of a frame one after the other, and writes those whose length is a field too.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::Name;
use crate::v1::headers::EncodedHeaders;
use crate::v1::text::{LongText, Reason};
use crate::v1::violation::MalformedFrame;

/// The largest number of a room, and the largest offset: JavaScript represents all integers up to it.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The fields of one message that have not been read yet.
pub(super) struct Cursor {
    kind: &'static str,
    rest: Bytes,
    read: usize,
}

impl Cursor {
    /// Begins after the opcode.
    pub(super) fn new(kind: &'static str, mut message: Bytes) -> Self {
        let rest = message.split_off(1);
        Self { kind, rest, read: 1 }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, MalformedFrame> {
        if self.rest.len() < len {
            let (needed, got) = (self.read + len, self.read + self.rest.len());
            return Err(MalformedFrame::Truncated { kind: self.kind, needed, got });
        }
        self.read += len;
        Ok(self.rest.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedFrame> {
        let bytes = self.take(N)?;
        Ok(*bytes.first_chunk().expect("it has this length"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, MalformedFrame> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, MalformedFrame> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MalformedFrame> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a number of 8 bytes, which is at most [`MAX_NUMBER`].
    pub(super) fn number(&mut self) -> Result<u64, MalformedFrame> {
        match self.array().map(u64::from_be_bytes)? {
            number @ 0..=MAX_NUMBER => Ok(number),
            number => Err(MalformedFrame::NumberTooLarge { kind: self.kind, number }),
        }
    }

    fn not_utf8(&self) -> MalformedFrame {
        MalformedFrame::NotUtf8 { kind: self.kind }
    }

    /// Reads a text whose length is one byte.
    pub(super) fn name(&mut self) -> Result<Name, MalformedFrame> {
        let len = self.u8()?.into();
        let bytes = self.take(len)?;
        Name::from_bytes(bytes).ok_or_else(|| self.not_utf8())
    }

    /// Reads the headers of a call.
    pub(super) fn headers(&mut self) -> Result<EncodedHeaders, MalformedFrame> {
        Ok(EncodedHeaders::from_bytes(self.bytes16()?).expect("its length is two bytes"))
    }

    /// Reads bytes whose length is two bytes.
    fn bytes16(&mut self) -> Result<Bytes, MalformedFrame> {
        let len = self.u16()?.into();
        self.take(len)
    }

    /// Reads a text whose length is two bytes.
    pub(super) fn text16(&mut self) -> Result<LongText, MalformedFrame> {
        let bytes = self.bytes16()?;
        LongText::from_bytes(bytes).ok_or_else(|| self.not_utf8())
    }

    /// Returns everything up to the end of the message.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// Returns the text up to the end of the message.
    pub(super) fn reason(self) -> Result<Reason, MalformedFrame> {
        let error = self.not_utf8();
        Reason::from_bytes(self.rest).ok_or(error)
    }

    /// Checks that the message ends here.
    pub(super) fn end(&self) -> Result<(), MalformedFrame> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(MalformedFrame::Trailing { kind: self.kind, expected: self.read, got: self.read + more }),
        }
    }
}

pub(super) fn put_name(out: &mut BytesMut, name: &Name) {
    out.put_u8(u8::try_from(name.as_bytes().len()).expect("a name has at most 255 bytes"));
    out.put_slice(name.as_bytes());
}

pub(super) fn put_bytes16(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("the type limits the length"));
    out.put_slice(bytes);
}
