//! `publish.lua` in Rust, for one message of one room.

use bytes::Bytes;

use crate::state::placement::Placement;

/// The script's arguments for a message.
#[derive(Debug, Clone)]
pub(super) struct PublishedMessage {
    /// The node that publishes the message.
    pub(super) origin: u64,
    /// The number that the origin gave to its last event.
    pub(super) number: u64,
    /// How many events the message has.
    pub(super) count: u64,
    /// How many messages the history keeps at least. 0 means that there is no history.
    pub(super) kept: u64,
    /// How long the history keeps them.
    pub(super) kept_ms: u64,
    /// How many bytes the history has at most.
    pub(super) max_bytes: u64,
    /// How long the position is kept. The next field is the same for a room that no node has read.
    pub(super) position_ms: u64,
    pub(super) unread_ms: u64,
    /// The encoded events.
    pub(super) events: Bytes,
}

/// What a run of the script does with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Where the script says that the events are.
    pub(super) placement: Placement,
    /// What is sent to the channel, unless the origin has published the message before.
    pub(super) sent: Option<Bytes>,
}

/// The time and the server of a run of the script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    /// Microseconds since 1970.
    pub(super) micros: u64,
    /// The server's replication id, shortened.
    pub(super) writer: &'a str,
}

impl Moment<'_> {
    fn millis(self) -> u64 {
        self.micros / 1000
    }
}

/// The value of a room's position key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: u64,
    start: u64,
    offset: u64,
    writer: String,
    is_read: bool,
    /// The bytes of the history, if they are counted.
    bytes: Option<u64>,
    /// The last number of each origin, the most recent first.
    origins: Vec<(u64, u64)>,
    expires: u64,
}

/// A room's keys on one server.
#[derive(Debug, Clone, Default)]
pub(super) struct RoomKeys {
    position: Option<Position>,
    /// The last messages of the room.
    history: Vec<Bytes>,
    history_expires: u64,
    /// Which of all accepted events have the offsets 1, 2, and so on. This is not stored in any
    /// key.
    pub(super) timeline: Vec<usize>,
    /// Whether an event of the timeline is no longer in the history.
    pub(super) trimmed: bool,
    /// How many events were dropped from the history only because it had too many bytes.
    pub(super) dropped: u64,
}

impl RoomKeys {
    /// Runs the script's loop once.
    pub(super) fn publish(&mut self, moment: Moment<'_>, publish: &PublishedMessage, is_subscribed: bool) -> Published {
        self.expire(moment.millis());
        if let Some(stored) = &self.position
            && stored.origins.iter().any(|(origin, last)| *origin == publish.origin && *last >= publish.number)
        {
            return Published { placement: self.find(publish, stored), sent: None };
        }
        let stored = self.position.take();
        if stored.is_none() {
            self.history.clear();
        }
        let first = stored.as_ref().map_or(0, |stored| stored.offset) + 1;
        let (epoch, start) = match &stored {
            Some(stored) if stored.writer == moment.writer => (stored.epoch, stored.start),
            stored => (moment.micros.max(stored.as_ref().map_or(0, |stored| stored.epoch) + 1), first),
        };
        let is_read = is_subscribed || stored.as_ref().is_some_and(|stored| stored.is_read);
        let (mut origins, mut bytes) = stored.map(|stored| (stored.origins, stored.bytes)).unwrap_or_default();
        origins.retain(|(origin, _)| *origin != publish.origin);
        origins.insert(0, (publish.origin, publish.number));
        let mut sent = format!("{epoch} {start} {first} {}\n", publish.count).into_bytes();
        sent.extend_from_slice(&publish.events);
        let (sent, placement) = (Bytes::from(sent), Placement { epoch, first, count: publish.count });
        if publish.kept > 0 {
            bytes = self.keep(&sent, publish, bytes.is_some());
            self.history_expires = moment.millis() + publish.kept_ms;
        } else {
            self.trimmed = true;
        }
        self.position = Some(Position {
            epoch,
            start,
            offset: first + publish.count - 1,
            writer: moment.writer.to_owned(),
            is_read,
            bytes,
            origins,
            expires: moment.millis() + if is_read { publish.position_ms } else { publish.unread_ms },
        });
        Published { placement, sent: Some(sent) }
    }

    /// Returns where the events of a message are that was published before. Without it in the
    /// history, returns the room's position.
    fn find(&self, publish: &PublishedMessage, stored: &Position) -> Placement {
        let in_history = self.history.iter().rev().filter(|_| publish.kept > 0).find_map(|message| {
            let end = message.iter().position(|byte| *byte == b'\n').expect("a header");
            (message[end + 1..] == publish.events).then(|| Placement::parse(&message[..end]).expect("a header"))
        });
        in_history.unwrap_or(Placement { epoch: stored.epoch, first: stored.offset, count: 1 })
    }

    /// Adds a message to the history, and trims the history. Returns the history's bytes, if they are
    /// counted from now on.
    fn keep(&mut self, sent: &Bytes, publish: &PublishedMessage, was_counted: bool) -> Option<u64> {
        let kept = usize::try_from(publish.kept).expect("a small number");
        let is_large = sent.len() as u64 * publish.kept * 9 > publish.max_bytes * 8;
        let is_counted = is_large || (was_counted && !self.history.is_empty());
        self.history.push(sent.clone());
        if self.history.len() * 8 > kept * 9 {
            self.history.drain(..self.history.len() - kept);
            self.trimmed = true;
        }
        let bytes = |history: &[Bytes]| history.iter().map(|message| message.len() as u64).sum();
        while is_counted && bytes(&self.history) > publish.max_bytes {
            let oldest = self.history.remove(0);
            self.trimmed = true;
            if self.history.len() < kept {
                self.dropped += events_of(&oldest);
            }
        }
        is_counted.then(|| bytes(&self.history))
    }

    /// Returns the reply to GET of the position.
    pub(super) fn position(&mut self, millis: u64) -> Option<String> {
        self.expire(millis);
        self.position.as_ref().map(|Position { epoch, start, offset, writer, is_read, bytes, origins, .. }| {
            let bytes = bytes.map_or_else(String::new, |bytes| format!(" {:016x}:{bytes}", 0));
            let origins: String = origins.iter().map(|(origin, number)| format!(" {origin:016x}:{number}")).collect();
            format!("{epoch} {start} {offset} {writer} {}{bytes}{origins}", u8::from(*is_read))
        })
    }

    /// Returns the offset of the room's last event.
    pub(super) fn offset(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.offset)
    }

    /// Returns as many of the history's last messages as there are events from an offset on.
    pub(super) fn history(&mut self, millis: u64, from: u64) -> Vec<Bytes> {
        self.expire(millis);
        let wanted = usize::try_from((self.offset() + 1).saturating_sub(from)).expect("a small number");
        self.history[self.history.len().saturating_sub(wanted)..].to_vec()
    }

    /// Drops the position, as if nothing had been published for a long time.
    pub(super) fn forget_position(&mut self) {
        self.position = None;
        self.timeline.clear();
    }

    /// Drops the history, as if it had expired.
    pub(super) fn forget_history(&mut self) {
        self.history.clear();
        self.trimmed = true;
    }

    /// Returns how long the position and the history are kept, in milliseconds from the beginning
    /// of the epoch, if they exist.
    pub(super) fn live_for(&self) -> (Option<u64>, Option<u64>) {
        let since = self.position.as_ref().map_or(0, |position| position.epoch / 1000);
        let history = (!self.history.is_empty()).then(|| self.history_expires - since);
        (self.position.as_ref().map(|position| position.expires - since), history)
    }

    fn expire(&mut self, millis: u64) {
        if self.position.as_ref().is_some_and(|position| position.expires <= millis) {
            self.position = None;
            self.timeline.clear();
        }
        if !self.history.is_empty() && self.history_expires <= millis {
            self.history.clear();
            self.trimmed = true;
        }
    }
}

/// Returns how many events a message of a history has, according to its header.
fn events_of(message: &[u8]) -> u64 {
    let header = message.split(|byte| *byte == b'\n').next().and_then(|header| std::str::from_utf8(header).ok());
    header.and_then(|header| header.split(' ').nth(3)?.parse().ok()).expect("a header")
}
