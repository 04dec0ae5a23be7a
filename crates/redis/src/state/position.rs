//! Tracks how far a node has read a room's events, which ones it has missed, and which ones it has
//! already read. It does no I/O.
//!
//! Redis gives each event of a room an **offset**. Within one **epoch**, each offset belongs to one
//! event, and each event has one offset. A new epoch begins when the room's position is written by
//! another server than before: a replica was promoted, Redis was restored without its data, or a
//! slot was moved. The epoch starts at the offset after the last one that the new server has. Epoch
//! and offset together are a **position**. For example:
//!
//! ```text
//! epoch 7:   … 48 49 50 51 52        a node has read up to 52 of epoch 7
//! epoch 9:            50 51 52 53    the promoted replica had up to 49: start = 50
//!                      ▲
//!                      the node reads on at min(52 + 1, start) = 50 of epoch 9
//! ```
//!
//! If a node had read beyond the start of the new epoch, it has read events that Redis no longer
//! has. This is a history reset.
//!
//! More than one epoch may have begun meanwhile, each at a lower offset than the previous one had
//! reached. If the epoch is new, the node therefore requests the whole history. Each message
//! contains the start of its own epoch.

use roomcast_core::{NodeId, Position};

use crate::state::message::{Message, RoomEvent};
use crate::state::stored::{MAX_ORIGINS, Stored};

/// How many messages, and how many bytes of them, may wait while a repair is under way. Further
/// messages are dropped, and are found missing afterwards.
const MAX_HELD: usize = 10_000;
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// The most events that one step counts as lost, so that a forged number cannot make a counter
/// overflow.
const MAX_COUNTED: u64 = 1 << 32;

/// The result of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The events to deliver, in order.
    pub(crate) events: Vec<(NodeId, RoomEvent)>,
    /// How many of the events came from the history.
    pub(crate) repaired: u64,
    /// How many events are lost, because the history no longer has them.
    pub(crate) lost: u64,
    /// How many events were dropped, because they had arrived before.
    pub(crate) duplicates: u64,
    /// Whether Redis has lost its last writes, including events that were already read.
    pub(crate) history_reset: bool,
    /// The offset from which to request the history.
    pub(crate) repair_from: Option<u64>,
}

impl Progress {
    fn count_lost(&mut self, events: u64) {
        self.lost = self.lost.saturating_add(events).min(MAX_COUNTED);
    }
}

/// The reader of one room.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The position of the last event that was read.
    at: Option<Position>,
    /// Live messages after a gap, which wait until the history has been read.
    repair: Option<HeldMessages>,
    /// The number of the last event of each origin. The most recent origin is last.
    origins: Vec<(NodeId, u64)>,
}

/// Messages that wait for a repair.
#[derive(Debug, Default)]
struct HeldMessages {
    messages: Vec<Message>,
    bytes: usize,
}

impl HeldMessages {
    fn push(&mut self, message: Message) {
        let size = message.size();
        if self.messages.is_empty() || (self.messages.len() < MAX_HELD && self.bytes + size <= MAX_HELD_BYTES) {
            self.bytes += size;
            self.messages.push(message);
        }
    }
}

/// The offset at which a message must begin if nothing is missing before it.
enum Expected {
    /// Nothing has been read yet, so a message may begin anywhere.
    Any,
    From(u64),
    /// The message belongs to an epoch that was superseded.
    Stale,
}

impl Reader {
    /// Returns the offset from which to read the history after an interruption. Returns `None` if
    /// nothing has been read yet.
    pub(crate) fn resume_from(&self) -> Option<u64> {
        self.at.map(|at| at.offset.saturating_add(1))
    }

    /// Records the position at the moment of the subscription. Earlier events are not delivered,
    /// even if they are published again on a server that has lost them.
    pub(crate) fn on_subscribed(&mut self, stored: Option<Stored>) {
        let Some(Stored { epoch, offset, origins, .. }) = stored else {
            self.at.get_or_insert(Position::NONE);
            return;
        };
        // An event that arrived before this reply has already set the position. An event of an
        // earlier subscription, which may still have been under way, has not set it far enough.
        let is_behind = |at: Position| (at.epoch, at.offset) < (epoch, offset);
        if self.at.is_none_or(is_behind) {
            self.at = Some(Position { epoch, offset });
        }
        for (origin, number) in origins.into_iter().rev() {
            self.is_new(origin, number);
        }
    }

    /// Makes further messages wait for [`on_repair`](Self::on_repair).
    pub(crate) fn start_repair(&mut self) {
        self.repair.get_or_insert_default();
    }

    /// Processes a message that arrived over the subscription.
    pub(crate) fn on_live(&mut self, message: Message, progress: &mut Progress) {
        if let Some(held) = &mut self.repair {
            held.push(message);
            return;
        }
        let repair_from = match self.expected(message.epoch, message.start) {
            Expected::From(next) if message.first > next => next,
            // Either Redis lost everything and its clock is behind its former time, or this is not
            // what is stored.
            Expected::Stale => 1,
            _ => return self.read_live(&message, progress),
        };
        progress.repair_from = Some(repair_from);
        self.repair.insert(HeldMessages::default()).push(message);
    }

    /// Processes the reply to the request for the history from `repair_from` on.
    pub(crate) fn on_repair(
        &mut self,
        repair_from: u64,
        stored: Option<&Stored>,
        history: &[Message],
        progress: &mut Progress,
    ) {
        if let Some(stored) = stored
            && self.repair.iter().flat_map(|held| &held.messages).any(|held| held.epoch == stored.epoch)
            && let Expected::Stale = self.expected(stored.epoch, stored.start)
        {
            // What is stored is what is published now, so it counts although its epoch is earlier.
            progress.history_reset = true;
            self.at = Some(Position { epoch: stored.epoch, offset: stored.start - 1 });
        }
        let expected = stored.map(|stored| (stored, self.expected(stored.epoch, stored.start)));
        match expected {
            Some((stored, Expected::From(_)))
                if repair_from > 1 && self.at.is_some_and(|at| at.epoch != stored.epoch) =>
            {
                progress.repair_from = Some(1);
            }
            Some((stored, Expected::From(_) | Expected::Any)) => {
                let before = progress.events.len();
                for message in history {
                    self.read(message, progress);
                }
                progress.repaired += (progress.events.len() - before) as u64;
                // Messages that arrived meanwhile are in `held`. The history may not have them,
                // because they are too large or it is off.
                self.read_held(Some(stored), progress);
                self.skip_to(stored, progress);
            }
            // The history contained everything that Redis still has from before these messages.
            // Reading it again would change nothing.
            Some((_, Expected::Stale)) | None => self.read_held(None, progress),
        }
    }

    /// Reads the messages that waited. Those that are newer than the stored position follow it
    /// without a gap, because Redis replies in order. A message that leaves a gap follows one that
    /// was dropped, or is forged. It must not move the position to an offset that does not exist.
    fn read_held(&mut self, stored: Option<&Stored>, progress: &mut Progress) {
        for message in self.repair.take().unwrap_or_default().messages {
            let is_beyond = |stored: &Stored| match self.expected(message.epoch, message.start) {
                Expected::From(next) => {
                    message.epoch == stored.epoch && message.first > next.max(stored.offset.saturating_add(1))
                }
                Expected::Any | Expected::Stale => false,
            };
            if !stored.is_some_and(is_beyond) {
                self.read(&message, progress);
            }
        }
    }

    /// Skips to the stored position. The events that the history did not have are lost.
    fn skip_to(&mut self, stored: &Stored, progress: &mut Progress) {
        if let Expected::From(next) = self.expected(stored.epoch, stored.start)
            && stored.offset >= next
        {
            progress.count_lost((stored.offset - next).saturating_add(1));
            self.note_reset(stored.epoch, stored.start, progress);
            self.at = Some(Position { epoch: stored.epoch, offset: stored.offset });
        }
    }

    /// Returns how many messages wait.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.repair.as_ref().map_or(0, |held| held.messages.len())
    }

    fn expected(&self, epoch: u64, start: u64) -> Expected {
        match self.at {
            None => Expected::Any,
            Some(at) if epoch == at.epoch => Expected::From(at.offset.saturating_add(1)),
            Some(at) if epoch < at.epoch => Expected::Stale,
            Some(at) => Expected::From(at.offset.saturating_add(1).min(start)),
        }
    }

    /// Records a reset if a new epoch starts at or before the last event that was read.
    fn note_reset(&self, epoch: u64, start: u64, progress: &mut Progress) {
        progress.history_reset |= self.at.is_some_and(|at| epoch > at.epoch && start <= at.offset);
    }

    /// Reads a live message that nothing is missing before. If it contains no new event, the
    /// position does not change. Redis publishes nothing twice, so such a message is a copy that
    /// somebody else sent to the channel. If that is wrong and Redis did give the events new
    /// offsets, the next message shows a gap, and the history has the events.
    fn read_live(&mut self, message: &Message, progress: &mut Progress) {
        let is_seen = |next| message.last() < next;
        if matches!(self.expected(message.epoch, message.start), Expected::From(next) if is_seen(next)) {
            return;
        }
        let Ok(events) = message.events() else { return };
        let is_copy =
            |event: &RoomEvent| self.origins.iter().any(|(of, last)| *of == message.origin && event.number <= *last);
        if events.iter().all(is_copy) {
            progress.duplicates += message.count;
        } else {
            self.read(message, progress);
        }
    }

    /// Reads the new events of a message. Events that are missing before it are lost.
    fn read(&mut self, message: &Message, progress: &mut Progress) {
        let next = match self.expected(message.epoch, message.start) {
            Expected::Any => message.first,
            Expected::From(next) => next,
            Expected::Stale => return,
        };
        progress.count_lost(message.first.saturating_sub(next));
        let seen = next.saturating_sub(message.first);
        if seen >= message.count {
            return;
        }
        self.note_reset(message.epoch, message.start, progress);
        self.at = Some(Position { epoch: message.epoch, offset: message.last() });
        let Ok(events) = message.events() else {
            progress.count_lost(message.count - seen);
            return;
        };
        for event in events.into_iter().skip(usize::try_from(seen).unwrap_or(usize::MAX)) {
            if self.is_new(message.origin, event.number) {
                progress.events.push((message.origin, event));
            } else {
                progress.duplicates += 1;
            }
        }
    }

    /// Records an event's number, and returns whether the event is new. The events of an origin
    /// arrive in the order of their numbers. A number that is not larger than the last one belongs
    /// to a publish that was repeated although it had been delivered.
    fn is_new(&mut self, origin: NodeId, number: u64) -> bool {
        let Some(index) = self.origins.iter().rposition(|(known, _)| *known == origin) else {
            if self.origins.len() >= MAX_ORIGINS {
                self.origins.remove(0);
            }
            self.origins.push((origin, number));
            return true;
        };
        self.origins[index..].rotate_left(1);
        let last = self.origins.len() - 1;
        let is_new = number > self.origins[last].1;
        if is_new {
            self.origins[last].1 = number;
        }
        is_new
    }
}
