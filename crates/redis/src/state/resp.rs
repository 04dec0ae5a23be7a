//! The part of Redis' protocol that a subscriber connection needs: commands are encoded, and
//! replies are interpreted.

use bytes::{BufMut, Bytes, BytesMut};
use redis_protocol::resp3::types::BytesFrame;

/// Appends a command (RESP: an array of bulk strings).
pub(crate) fn put_command<T: AsRef<[u8]>>(out: &mut BytesMut, words: impl ExactSizeIterator<Item = T>) {
    put_number(out, b'*', words.len());
    for word in words {
        let word = word.as_ref();
        put_number(out, b'$', word.len());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

fn put_number(out: &mut BytesMut, kind: u8, number: usize) {
    out.put_u8(kind);
    out.put_slice(number.to_string().as_bytes());
    out.put_slice(b"\r\n");
}

/// What arrives on a subscriber connection.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// A message on a sharded channel.
    Message { channel: Bytes, payload: Bytes },
    /// A subscription has become effective.
    Subscribed { channel: Bytes },
    /// A subscription has ended, because this node unsubscribed or because the slot was moved.
    Unsubscribed { channel: Bytes },
    /// The reply to a command, in the order of the commands.
    Reply(BytesFrame),
}

impl Incoming {
    /// Interprets a frame. Returns `None` for a push that does not matter.
    pub(crate) fn of(frame: BytesFrame) -> Option<Self> {
        let BytesFrame::Push { data, .. } = frame else { return Some(Self::Reply(frame)) };
        let mut parts = data.into_iter();
        let kind = bytes_of(parts.next()?)?;
        let channel = bytes_of(parts.next()?)?;
        match &kind[..] {
            b"smessage" => Some(Self::Message { channel, payload: bytes_of(parts.next()?)? }),
            b"ssubscribe" => Some(Self::Subscribed { channel }),
            b"sunsubscribe" => Some(Self::Unsubscribed { channel }),
            _ => None,
        }
    }
}

/// Returns the bytes of a string of any kind.
pub(crate) fn bytes_of(frame: BytesFrame) -> Option<Bytes> {
    match frame {
        BytesFrame::BlobString { data, .. }
        | BytesFrame::SimpleString { data, .. }
        | BytesFrame::VerbatimString { data, .. } => Some(data),
        _ => None,
    }
}

/// Returns the text of an error.
pub(crate) fn error_of(frame: &BytesFrame) -> Option<String> {
    match frame {
        BytesFrame::SimpleError { data, .. } => Some(data.to_string()),
        BytesFrame::BlobError { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
        _ => None,
    }
}

/// Returns the strings of an array.
pub(crate) fn strings_of(frame: BytesFrame) -> Option<Vec<Bytes>> {
    match frame {
        BytesFrame::Array { data, .. } => data.into_iter().map(bytes_of).collect(),
        _ => None,
    }
}
