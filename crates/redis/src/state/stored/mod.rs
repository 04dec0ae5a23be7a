//! What Redis keeps of a room, with the two scripts that write and read it, the ledger, and
//! lifecycle events, whose scripts describe them.
//!
//! | key | value | time to live |
//! |---|---|---|
//! | position | `<epoch> <start> <offset> <writer> <read> <origin>:<number> …`, as [`Stored`] and `publish.lua` describe | 2 h after the last publish, or 5 min if no node has read the room |
//! | history | a list of the last messages, exactly as they were sent to the room's channel (`message`) | the age in the room's history rule |
//!
//! `publish.lua` writes both keys. `position` interprets them.

use roomcast_core::NodeId;

/// Publishes the messages of a batch.
pub(crate) const PUBLISH: &str = include_str!("publish.lua");

/// Reads a room's position, and the messages of its history that end with the event at offset
/// `ARGV[1]` or a later one. Each message has at least one event, so it is sufficient to read as
/// many of the last messages as events are requested. Older messages may precede them. If no event
/// is requested, an empty range is read, so that a probe proves the permission to read one.
pub(crate) const READ_HISTORY: &str = "\
    local position = redis.call('GET', KEYS[1]) \
    local last = position and string.match(position, '^%d+ %d+ (%d+)') \
    local wanted = last and last - ARGV[1] + 1 or 0 \
    local from, to = -wanted, -1 \
    if wanted <= 0 then from, to = 1, 0 end \
    return {position, redis.call('LRANGE', KEYS[2], from, to)}";

/// Adds records to the ledger, and reads it.
pub(crate) const LEDGER: &str = include_str!("ledger.lua");

/// Applies a node's records of lifecycle events.
pub(crate) const EVENTS_REPORT: &str = include_str!("events_report.lua");

/// Removes the lifecycle events that were accepted, and returns the next ones.
pub(crate) const EVENTS_TAKE: &str = include_str!("events_take.lua");

/// Makes dead lifecycle events wait again.
pub(crate) const EVENTS_REPLAY: &str = include_str!("events_replay.lua");

/// Returns the `ARGV[1]` oldest dead lifecycle events of the stream `KEYS[1]`, each as its place, id,
/// time and content.
pub(crate) const DEAD_EVENTS: &str = "\
    local events = {} \
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do \
        local fields = {} \
        for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end \
        events[#events + 1] = {entry[1], fields.i, fields.t, fields.c} \
    end \
    return events";

/// How many origins a position contains, and how many a reader remembers, in order to recognise a
/// repeated publish. The least recent origin is dropped.
pub(crate) const MAX_ORIGINS: usize = 64;

/// The origin whose number is not that of an event, but how many bytes the history has. No node has this id. A node of an
/// earlier release therefore reads the position, too.
const BYTES_OF_HISTORY: NodeId = NodeId::from_u64(0);

/// The value of a room's position key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) epoch: u64,
    /// The first offset of the epoch.
    pub(crate) start: u64,
    /// The offset of the last event.
    pub(crate) offset: u64,
    /// The number of the last event of each origin. The most recent origin is first.
    pub(crate) origins: Vec<(NodeId, u64)>,
}

impl Stored {
    /// Parses `<epoch> <start> <offset> <writer> <read> <origin>:<number> …`, which the publish
    /// script writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (epoch, start, offset) = (number()?, number()?, number()?);
        let (_writer, _read) = (parts.next()?, parts.next()?);
        let origin = |part: &str| {
            let (origin, number) = part.split_once(':')?;
            Some((origin.parse().ok()?, number.parse().ok()?))
        };
        let is_of_node = |origin: &Option<(NodeId, u64)>| !matches!(origin, Some((BYTES_OF_HISTORY, _)));
        let origins = parts.map(origin).filter(is_of_node).take(MAX_ORIGINS).collect::<Option<_>>()?;
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
        // If the list is longer than this, the script drops one origin, and adds one.
        assert!((one * (MAX_ORIGINS - 1)..one * MAX_ORIGINS).contains(&length), "{length}");
    }
}
