//! `publish.lua`, in Rust: one message of one room.

use bytes::Bytes;

/// What the script is told about a message.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    /// How many events it has.
    pub(super) count: u64,
    /// How many events the backlog keeps; 0: it has none.
    pub(super) kept: u64,
    /// How long it keeps them.
    pub(super) kept_ms: u64,
    /// How long the position is kept.
    pub(super) position_ms: u64,
    /// The encoded events.
    pub(super) events: Bytes,
}

/// When and where the script runs.
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

/// What is under a room's position key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: u64,
    start: u64,
    sequence: u64,
    writer: String,
    expires: u64,
}

/// A room's keys on one server.
#[derive(Debug, Clone, Default)]
pub(super) struct RoomKeys {
    position: Option<Position>,
    /// Messages under their last events' numbers.
    backlog: Vec<(u64, Bytes)>,
    backlog_expires: u64,
    /// What is in no key: which of all accepted events have the numbers 1, 2, ….
    pub(super) history: Vec<usize>,
    /// Whether an event of the history is no longer in the backlog.
    pub(super) trimmed: bool,
}

impl RoomKeys {
    /// The script's loop, once. Returns what is sent to the channel.
    pub(super) fn publish(&mut self, moment: Moment<'_>, publish: &Publish) -> Bytes {
        self.expire(moment.millis());
        let stored = self.position.take();
        if stored.is_none() {
            self.backlog.clear();
        }
        let first = stored.as_ref().map_or(0, |stored| stored.sequence) + 1;
        let (epoch, start) = match &stored {
            Some(stored) if stored.writer == moment.writer => (stored.epoch, stored.start),
            _ => (moment.micros.max(stored.map_or(0, |stored| stored.epoch) + 1), first),
        };
        let last = first + publish.count - 1;
        self.position = Some(Position {
            epoch,
            start,
            sequence: last,
            writer: moment.writer.to_owned(),
            expires: moment.millis() + publish.position_ms,
        });
        let mut sent = format!("{epoch} {start} {first} {}\n", publish.count).into_bytes();
        sent.extend_from_slice(&publish.events);
        let sent = Bytes::from(sent);
        if publish.kept > 0 {
            self.backlog.push((last, sent.clone()));
            let before = self.backlog.len();
            self.backlog.retain(|(last_of, _)| *last_of + publish.kept > last);
            self.trimmed |= self.backlog.len() < before;
            self.backlog_expires = moment.millis() + publish.kept_ms;
        } else {
            self.trimmed = true;
        }
        sent
    }

    /// What GET of the position answers.
    pub(super) fn position(&mut self, millis: u64) -> Option<String> {
        self.expire(millis);
        self.position
            .as_ref()
            .map(|Position { epoch, start, sequence, writer, .. }| format!("{epoch} {start} {sequence} {writer}"))
    }

    /// What XRANGE of the backlog answers.
    pub(super) fn backlog(&mut self, millis: u64, from: u64) -> Vec<(u64, Bytes)> {
        self.expire(millis);
        self.backlog.iter().filter(|(last, _)| *last >= from).cloned().collect()
    }

    /// Loses the position as when nobody published for long.
    pub(super) fn forget_position(&mut self) {
        self.position = None;
        self.history.clear();
    }

    /// For how many milliseconds after the epoch's beginning position and backlog are kept, if they are there.
    pub(super) fn live_for(&self) -> (Option<u64>, Option<u64>) {
        let since = self.position.as_ref().map_or(0, |position| position.epoch / 1000);
        let backlog = (!self.backlog.is_empty()).then(|| self.backlog_expires - since);
        (self.position.as_ref().map(|position| position.expires - since), backlog)
    }

    fn expire(&mut self, millis: u64) {
        if self.position.as_ref().is_some_and(|position| position.expires <= millis) {
            self.position = None;
            self.history.clear();
        }
        if !self.backlog.is_empty() && self.backlog_expires <= millis {
            self.backlog.clear();
            self.trimmed = true;
        }
    }
}
