//! What is asked of one server over its subscriber connection, and what it answered: no I/O.
//!
//! Commands are pipelined in groups. Each ends with an ECHO of a marker, so that a group's answers are known
//! from the next one's whatever they are: an accepted SSUBSCRIBE is confirmed by pushes and has no reply,
//! a refused one has an error. Redis answers in order and puts messages in between where they happened:
//! when the answer to GET of a room's position comes, every earlier event of that room has come.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fred::types::config::Server;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::RoomName;

use crate::state::keys::Keys;
use crate::state::resp::{bytes_of, error_of, put_command, strings_of};

/// How many rooms may be asked about at once. It bounds what waits in Redis' output buffer for us, which
/// Redis cuts off at 32 MiB (`client-output-buffer-limit pubsub`).
const MAX_IN_FLIGHT: usize = 512;

/// How many rooms are asked about in one group.
const MAX_GROUP: usize = 64;

/// A server that owes an answer and says nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(3);

/// Reads a room's position, and the messages of its history that end with the event at offset `ARGV[1]` or a later one.
/// Each message has at least one event, so they are among as many last messages as events are wanted; there may be
/// older messages before them. When none is wanted, an empty range is read: a probe proves the right to read one.
pub(crate) const READ_HISTORY: &str = "\
    local position = redis.call('GET', KEYS[1]) \
    local last = position and string.match(position, '^%d+ %d+ (%d+)') \
    local wanted = last and last - ARGV[1] + 1 or 0 \
    local from, to = -wanted, -1 \
    if wanted <= 0 then from, to = 1, 0 end \
    return {position, redis.call('LRANGE', KEYS[2], from, to)}";

/// A group of commands.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Rooms to subscribe to; each with the offset from which its history is wanted, if it was read before.
    Subscribe(Vec<(RoomName, Option<u64>)>),
    /// A room's history from an offset on.
    Repair(RoomName, u64),
    /// To end a room's subscription.
    Leave(RoomName),
    /// Only whether it is there.
    Ping,
}

/// One server.
#[derive(Debug)]
pub(crate) struct ServerSession {
    pub(crate) server: Server,
    /// Since when it is connected.
    connected: bool,
    /// Rooms that wait to be asked about, with their slots.
    queue: VecDeque<(u16, RoomName)>,
    asked: VecDeque<(Bytes, Ask)>,
    in_flight: usize,
    /// How many may be in flight. It shrinks when the connection ends with questions open, since Redis may have
    /// cut it off for the size of its answers, and grows with each answer.
    window: usize,
    replies: Vec<BytesFrame>,
    /// SUNSUBSCRIBEs that were not answered, and so may yet be confirmed.
    leaving: HashMap<RoomName, u32>,
    output: BytesMut,
    last_heard: Instant,
    markers: u64,
    /// What Redis answered when it last refused a subscription.
    pub(crate) refusal: Option<String>,
}

impl ServerSession {
    pub(crate) fn new(server: Server, now: Instant) -> Self {
        Self {
            server,
            connected: false,
            queue: VecDeque::new(),
            asked: VecDeque::new(),
            in_flight: 0,
            window: MAX_IN_FLIGHT,
            replies: Vec::new(),
            leaving: HashMap::new(),
            output: BytesMut::new(),
            last_heard: now,
            markers: 0,
            refusal: None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn on_connected(&mut self, now: Instant) {
        self.connected = true;
        self.last_heard = now;
    }

    /// Forgets everything that was asked.
    pub(crate) fn on_disconnected(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        let window = if self.in_flight > 0 { (self.window / 2).max(1) } else { self.window };
        *self = Self { queue, window, markers: self.markers, ..Self::new(self.server.clone(), self.last_heard) };
    }

    /// Whether nothing is asked that was not answered.
    pub(crate) fn has_all_answers(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether it owes an answer for too long.
    pub(crate) fn is_lost(&self, now: Instant) -> bool {
        self.connected && !self.asked.is_empty() && now.duration_since(self.last_heard) > SILENCE
    }

    /// A room waits to be subscribed to.
    pub(crate) fn enqueue(&mut self, slot: u16, room: RoomName) {
        self.queue.push_back((slot, room));
    }

    /// The rooms that waited; they are somebody else's now.
    pub(crate) fn take_queue(&mut self) -> VecDeque<(u16, RoomName)> {
        std::mem::take(&mut self.queue)
    }

    /// Brings rooms of one slot together, so that they go into one SSUBSCRIBE.
    pub(crate) fn sort_queue(&mut self) {
        self.queue.make_contiguous().sort_by_key(|(slot, _)| *slot);
    }

    /// The rooms to ask about next, as many as may be asked together.
    pub(crate) fn next_group(&mut self, has_slots: bool) -> Option<Vec<RoomName>> {
        if !self.connected || self.in_flight >= self.window {
            return None;
        }
        let (first, _) = *self.queue.front()?;
        let fits = |(slot, _): &&(u16, RoomName)| !has_slots || *slot == first;
        let count = self.queue.iter().take(MAX_GROUP.min(self.window)).take_while(fits).count();
        Some(self.queue.drain(..count).map(|(_, room)| room).collect())
    }

    /// Writes a group of commands.
    pub(crate) fn ask(&mut self, keys: &Keys, ask: Ask, now: Instant) {
        if self.asked.is_empty() {
            self.last_heard = now;
        }
        let rooms = match &ask {
            Ask::Subscribe(rooms) => {
                let channels = rooms.iter().map(|(room, _)| keys.channel(room));
                put_command(
                    &mut self.output,
                    std::iter::once("SSUBSCRIBE".to_owned()).chain(channels).collect::<Vec<_>>().iter(),
                );
                rooms.as_slice()
            }
            Ask::Repair(room, from) => &[(room.clone(), Some(*from))],
            Ask::Leave(room) => {
                put_command(&mut self.output, ["SUNSUBSCRIBE", &keys.channel(room)].iter());
                &[]
            }
            Ask::Ping => &[],
        };
        for (room, from) in rooms {
            let position = keys.position(room);
            match from {
                None => put_command(&mut self.output, ["GET", &position].iter()),
                Some(from) => {
                    let words = ["EVAL", READ_HISTORY, "2", &position, &keys.history(room), &from.to_string()];
                    put_command(&mut self.output, words.iter());
                }
            }
        }
        self.in_flight += rooms.len();
        self.markers += 1;
        let marker = format!("marker {}", self.markers);
        put_command(&mut self.output, ["ECHO", &marker].iter());
        self.asked.push_back((marker.into(), ask));
    }

    /// Asks for a sign of life, if nothing else is asked.
    pub(crate) fn ping(&mut self, keys: &Keys, now: Instant) {
        if self.connected && self.asked.is_empty() {
            self.ask(keys, Ask::Ping, now);
        }
    }

    /// Ends a room's subscription. In a cluster that may be refused: the slot has moved, which ended it.
    pub(crate) fn unsubscribe(&mut self, keys: &Keys, room: &RoomName, now: Instant) {
        if self.connected {
            *self.leaving.entry(room.clone()).or_default() += 1;
            self.ask(keys, Ask::Leave(room.clone()), now);
        }
    }

    /// Whether a subscription that ended did so by our wish.
    pub(crate) fn is_leaving(&self, room: &str) -> bool {
        self.leaving.contains_key(room)
    }

    /// Something came, whatever it is.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Collects an answer. With a group's last one, gives the group and all its answers.
    pub(crate) fn on_reply(&mut self, reply: BytesFrame) -> Option<(Ask, Vec<BytesFrame>)> {
        let is_marker = matches!((&reply, self.asked.front()), (BytesFrame::BlobString { data, .. }, Some((marker, _))) if data == marker);
        if !is_marker {
            self.replies.push(reply);
            return None;
        }
        let (_, ask) = self.asked.pop_front()?;
        self.window = (self.window + 1).min(MAX_IN_FLIGHT);
        match &ask {
            Ask::Subscribe(rooms) => self.in_flight -= rooms.len(),
            Ask::Repair(..) => self.in_flight -= 1,
            Ask::Leave(room) => {
                if let Some(count) = self.leaving.get_mut(room).filter(|count| **count > 1) {
                    *count -= 1;
                } else {
                    self.leaving.remove(room);
                }
            }
            Ask::Ping => {}
        }
        Some((ask, std::mem::take(&mut self.replies)))
    }

    /// How many rooms are asked about.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What is to be written.
    pub(crate) fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }
}

/// The answer about one room.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What is under its position key.
    pub(crate) position: Option<Bytes>,
    /// The messages of its history, if they were asked for.
    pub(crate) history: Vec<Bytes>,
}

impl Answer {
    /// Reads the answers about so many rooms from a group's replies, room by room: a key that is on its way to
    /// another server is no other room's trouble. The error is Redis' own; the outer one is of the subscription.
    pub(crate) fn read(
        asked: &[(RoomName, Option<u64>)],
        mut replies: Vec<BytesFrame>,
    ) -> Result<Vec<Result<Self, String>>, String> {
        if replies.len() > asked.len() {
            // A subscription that is confirmed has no reply.
            return Err(error_of(&replies.swap_remove(0)).unwrap_or_else(unexpected));
        }
        let mut replies = replies.into_iter();
        let answer = |(_, from): &(_, Option<_>)| Self::of_room(from.is_some(), replies.next().ok_or_else(unexpected)?);
        Ok(asked.iter().map(answer).collect())
    }

    fn of_room(with_history: bool, reply: BytesFrame) -> Result<Self, String> {
        if let Some(error) = error_of(&reply) {
            return Err(error);
        }
        if !with_history {
            return Ok(Self { position: bytes_of(reply), history: Vec::new() });
        }
        let BytesFrame::Array { data, .. } = reply else { return Err(unexpected()) };
        let [position, history] = <[_; 2]>::try_from(data).map_err(|_| unexpected())?;
        Ok(Self { position: bytes_of(position), history: strings_of(history).ok_or_else(unexpected)? })
    }
}

fn unexpected() -> String {
    "an answer that was not expected".to_owned()
}
