//! `publish.lua`, in Rust: one message of one room.

use bytes::Bytes;

/// What the script is told about a message.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    /// Who publishes it.
    pub(super) origin: u64,
    /// The number that the origin gave to its last event.
    pub(super) number: u64,
    /// How many events it has.
    pub(super) count: u64,
    /// How many messages the backlog keeps at least; 0: it has none.
    pub(super) kept: u64,
    /// How long it keeps them.
    pub(super) kept_ms: u64,
    /// How long the position is kept, and how long if nobody ever read the room.
    pub(super) position_ms: u64,
    pub(super) unread_ms: u64,
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
    is_read: bool,
    /// The last number of each origin, the most recent first.
    origins: Vec<(u64, u64)>,
    expires: u64,
}

/// A room's keys on one server.
#[derive(Debug, Clone, Default)]
pub(super) struct RoomKeys {
    position: Option<Position>,
    /// The last messages.
    backlog: Vec<Bytes>,
    backlog_expires: u64,
    /// What is in no key: which of all accepted events have the numbers 1, 2, ….
    pub(super) history: Vec<usize>,
    /// Whether an event of the history is no longer in the backlog.
    pub(super) trimmed: bool,
}

impl RoomKeys {
    /// The script's loop, once. Returns what is sent to the channel. `None`: the origin published it before.
    pub(super) fn publish(&mut self, moment: Moment<'_>, publish: &Publish, is_subscribed: bool) -> Option<Bytes> {
        self.expire(moment.millis());
        if let Some(stored) = &self.position
            && stored.origins.iter().any(|(origin, last)| *origin == publish.origin && *last >= publish.number)
        {
            return None;
        }
        let stored = self.position.take();
        if stored.is_none() {
            self.backlog.clear();
        }
        let first = stored.as_ref().map_or(0, |stored| stored.sequence) + 1;
        let (epoch, start) = match &stored {
            Some(stored) if stored.writer == moment.writer => (stored.epoch, stored.start),
            stored => (moment.micros.max(stored.as_ref().map_or(0, |stored| stored.epoch) + 1), first),
        };
        let is_read = is_subscribed || stored.as_ref().is_some_and(|stored| stored.is_read);
        let mut origins = stored.map(|stored| stored.origins).unwrap_or_default();
        origins.retain(|(origin, _)| *origin != publish.origin);
        origins.insert(0, (publish.origin, publish.number));
        let last = first + publish.count - 1;
        self.position = Some(Position {
            epoch,
            start,
            sequence: last,
            writer: moment.writer.to_owned(),
            is_read,
            origins,
            expires: moment.millis() + if is_read { publish.position_ms } else { publish.unread_ms },
        });
        let mut sent = format!("{epoch} {start} {first} {}\n", publish.count).into_bytes();
        sent.extend_from_slice(&publish.events);
        let sent = Bytes::from(sent);
        if publish.kept > 0 {
            self.backlog.push(sent.clone());
            let kept = usize::try_from(publish.kept).expect("a small number");
            if self.backlog.len() * 8 > kept * 9 {
                self.backlog.drain(..self.backlog.len() - kept);
                self.trimmed = true;
            }
            self.backlog_expires = moment.millis() + publish.kept_ms;
        } else {
            self.trimmed = true;
        }
        Some(sent)
    }

    /// What GET of the position answers.
    pub(super) fn position(&mut self, millis: u64) -> Option<String> {
        self.expire(millis);
        self.position.as_ref().map(|Position { epoch, start, sequence, writer, is_read, origins, .. }| {
            let origins: String = origins.iter().map(|(origin, number)| format!(" {origin:016x}:{number}")).collect();
            format!("{epoch} {start} {sequence} {writer} {}{origins}", u8::from(*is_read))
        })
    }

    /// The number of the room's last event.
    pub(super) fn sequence(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.sequence)
    }

    /// As many of the backlog's last messages as there are events from a number on.
    pub(super) fn backlog(&mut self, millis: u64, from: u64) -> Vec<Bytes> {
        self.expire(millis);
        let wanted = usize::try_from((self.sequence() + 1).saturating_sub(from)).expect("a small number");
        self.backlog[self.backlog.len().saturating_sub(wanted)..].to_vec()
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
