//! What every published event carries, so that each member can check it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::scenario::MIN_PAYLOAD;

/// The stamp's size in bytes.
const STAMP_LEN: usize = 36;
const _: () = assert!(STAMP_LEN <= MIN_PAYLOAD, "every event has room for its stamp");

/// Where the two checksums are.
const BODY_CHECK_AT: usize = 28;
const STAMP_CHECK_AT: usize = 32;

/// The event's name on the wire.
pub(crate) const EVENT: &str = "load";

/// An event's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells runs apart.
    pub(crate) run: u32,
    pub(crate) room: u32,
    /// The publisher's number in the room.
    pub(crate) publisher: u32,
    /// The publisher's count of events in the room.
    pub(crate) sequence: u64,
    /// When it was to be published.
    pub(crate) planned: u64,
}

/// What became of an event's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// As they were sent.
    Whole(Stamp),
    /// The event is known, but what follows the stamp has changed.
    BodyCorrupt(Stamp),
    /// Not even the stamp can be read.
    Corrupt,
}

impl Stamp {
    /// The event's bytes: the stamp, and a body that fills it up to `len` (at least the stamp's).
    pub(crate) fn write(&self, len: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(len.max(STAMP_LEN));
        out.put_u32(self.run);
        out.put_u32(self.room);
        out.put_u32(self.publisher);
        out.put_u64(self.sequence);
        out.put_u64(self.planned);
        out.put_bytes(0, STAMP_LEN - BODY_CHECK_AT);
        out.put_bytes(self.sequence as u8, len.saturating_sub(STAMP_LEN));
        let body = crc32fast::hash(&out[STAMP_LEN..]);
        out[BODY_CHECK_AT..STAMP_CHECK_AT].copy_from_slice(&body.to_be_bytes());
        let stamp = crc32fast::hash(&out[..STAMP_CHECK_AT]);
        out[STAMP_CHECK_AT..STAMP_LEN].copy_from_slice(&stamp.to_be_bytes());
        out.freeze()
    }

    /// Reads an event's bytes.
    pub(crate) fn read(event: &[u8]) -> Read {
        let Some((stamp, body)) = event.split_at_checked(STAMP_LEN) else { return Read::Corrupt };
        if crc32fast::hash(&stamp[..STAMP_CHECK_AT]) != u32_at(stamp, STAMP_CHECK_AT) {
            return Read::Corrupt;
        }
        let read = Self {
            run: u32_at(stamp, 0),
            room: u32_at(stamp, 4),
            publisher: u32_at(stamp, 8),
            sequence: u64_at(stamp, 12),
            planned: u64_at(stamp, 20),
        };
        match crc32fast::hash(body) == u32_at(stamp, BODY_CHECK_AT) {
            true => Read::Whole(read),
            false => Read::BodyCorrupt(read),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn any_change_is_seen(
            (run, room, publisher) in any::<(u32, u32, u32)>(), (sequence, planned) in any::<(u64, u64)>(), len in 0..300_usize,
            at in any::<Index>(), damage in 1..=255_u8,
        ) {
            let stamp = Stamp { run, room, publisher, sequence, planned };
            let mut event = stamp.write(len).to_vec();
            prop_assert_eq!(event.len(), len.max(STAMP_LEN));
            prop_assert_eq!(Stamp::read(&event), Read::Whole(stamp));
            let at = at.index(event.len());
            event[at] ^= damage;
            let expected = if at < STAMP_LEN { Read::Corrupt } else { Read::BodyCorrupt(stamp) };
            prop_assert_eq!(Stamp::read(&event), expected);
            event[at] ^= damage;
            event.pop();
            prop_assert!(!matches!(Stamp::read(&event), Read::Whole(_)) || len <= STAMP_LEN);
        }
    }
}
