//! What Redis keeps of a room, and the two scripts that write and read it.
//!
//! | key | its value | time to live |
//! |---|---|---|
//! | position | `<epoch> <start> <offset> <writer> <read> <origin>:<number> …`, see [`Stored`] | 2 h after the last publish; 5 min in a room that nobody has read |
//! | history | a list of the last messages, each exactly as it was sent to the room's channel (`message`) | that of the room's history rule |
//!
//! `publish.lua` writes both. `position` is what a node makes of them.

use roomcast_core::NodeId;

/// Publishes the messages of a batch.
pub(crate) const PUBLISH: &str = include_str!("publish.lua");

/// Reads a room's position, and the messages of its history that end with the event at offset `ARGV[1]` or a later one.
/// Each message has at least one event, so they are among as many last messages as events are requested; there may be
/// older messages before them. When none is requested, an empty range is read: a probe proves the right to read one.
pub(crate) const READ_HISTORY: &str = "\
    local position = redis.call('GET', KEYS[1]) \
    local last = position and string.match(position, '^%d+ %d+ (%d+)') \
    local wanted = last and last - ARGV[1] + 1 or 0 \
    local from, to = -wanted, -1 \
    if wanted <= 0 then from, to = 1, 0 end \
    return {position, redis.call('LRANGE', KEYS[2], from, to)}";

/// How many origins a position has, and how many a reader remembers, to recognise a publish that was tried again. The
/// least recent is dropped.
pub(crate) const MAX_ORIGINS: usize = 64;

/// What Redis has under a room's position key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) epoch: u64,
    /// The first offset of the epoch.
    pub(crate) start: u64,
    /// The offset of the last event.
    pub(crate) offset: u64,
    /// The number of the last event of each origin, the most recent origin first.
    pub(crate) origins: Vec<(NodeId, u64)>,
}

impl Stored {
    /// `<epoch> <start> <offset> <writer> <read> <origin>:<number> …`, as the publish script writes it.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (epoch, start, offset) = (number()?, number()?, number()?);
        let (_writer, _read) = (parts.next()?, parts.next()?);
        let origin = |part: &str| {
            let (origin, number) = part.split_once(':')?;
            Some((origin.parse().ok()?, number.parse().ok()?))
        };
        let origins = parts.take(MAX_ORIGINS).map(origin).collect::<Option<_>>()?;
        (start >= 1).then_some(Self { epoch, start, offset, origins })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_keeps_as_many_origins_as_readers_remember() {
        let (_, rest) = PUBLISH.split_once("local MAX_ORIGINS_LENGTH = ").expect("the script has the constant");
        let length: usize = rest.lines().next().and_then(|text| text.parse().ok()).expect("it is a number");
        let one = " 0123456789abcdef:12345678".len();
        // The script drops one when the list is longer than this, and adds one.
        assert!((one * (MAX_ORIGINS - 1)..one * MAX_ORIGINS).contains(&length), "{length}");
    }
}
