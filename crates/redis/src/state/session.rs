//! The requests to a server over its subscriber connection, and their responses. This module does
//! no I/O.
//!
//! A request is a group of pipelined commands that ends with an ECHO of a marker. The marker
//! separates the replies to this request from the next one's, whatever they are. For example, an
//! accepted SSUBSCRIBE has no reply, because pushes confirm it, but a rejected one has an error as
//! its reply. Redis replies in order, and inserts messages where they occurred. When the reply to
//! GET of a room's position arrives, every earlier event of that room has therefore arrived.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fred::types::config::Server;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::RoomName;

use crate::state::keys::Keys;
use crate::state::resp::{bytes_of, error_of, put_command, strings_of};
use crate::state::room::SessionIndex;
use crate::state::stored::READ_HISTORY;

/// How many rooms the pending requests may concern. This limits the commands that wait to be
/// written, and the replies in Redis' output buffer. Redis closes the connection if that buffer
/// exceeds 32 MiB (`client-output-buffer-limit pubsub`).
const MAX_IN_FLIGHT: usize = 512;

/// How many rooms one request may concern.
const MAX_GROUP: usize = 64;

/// If a server owes a reply and sends nothing for this long, its connection is lost.
const SILENCE: Duration = Duration::from_secs(3);

/// A group of commands.
#[derive(Debug)]
pub(crate) enum Request {
    /// Subscribes to rooms. Each has the offset from which to read its history, if it was read
    /// before.
    Subscribe(Vec<(RoomName, Option<u64>)>),
    /// Reads a room's history from an offset on.
    Repair(RoomName, u64),
    /// Ends the subscriptions to rooms.
    Unsubscribe(Vec<RoomName>),
    /// Only requests a reply.
    Ping,
}

/// A server, as the subscriber's task sees it.
pub(crate) struct Known {
    pub(crate) index: SessionIndex,
    pub(crate) server: Server,
    /// Whether it owns slots now.
    pub(crate) owns: bool,
    pub(crate) is_connected: bool,
}

/// The session of one server.
#[derive(Debug)]
pub(crate) struct ServerSession {
    pub(crate) server: Server,
    connected: bool,
    /// Rooms to subscribe to, with their slots.
    subscribes: VecDeque<(u16, RoomName)>,
    /// Rooms to unsubscribe from, with their slots. They are sent first, because an earlier
    /// unsubscription must not end a later subscription to the same room.
    unsubscribes: VecDeque<(u16, RoomName)>,
    /// Requests without a response, with their markers.
    pending: VecDeque<(Bytes, Request)>,
    /// How many rooms the pending requests concern.
    in_flight: usize,
    /// How many rooms may be in flight. The window shrinks if the connection ends with requests
    /// pending, because Redis may have closed it for the size of its replies. It grows with each
    /// response.
    window: usize,
    replies: Vec<BytesFrame>,
    /// For each room, how many pending requests unsubscribe from it. Redis has not confirmed these
    /// yet.
    leaving: HashMap<RoomName, u32>,
    output: BytesMut,
    last_heard: Instant,
    markers: u64,
    /// Redis' error when it last rejected a subscription.
    pub(crate) refusal: Option<String>,
}

impl ServerSession {
    pub(crate) fn new(server: Server, now: Instant) -> Self {
        Self {
            server,
            connected: false,
            subscribes: VecDeque::new(),
            unsubscribes: VecDeque::new(),
            pending: VecDeque::new(),
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

    /// Discards all requests. All subscriptions have ended with the connection.
    pub(crate) fn on_disconnected(&mut self) {
        let subscribes = std::mem::take(&mut self.subscribes);
        let window = if self.in_flight > 0 { (self.window / 2).max(1) } else { self.window };
        *self = Self { subscribes, window, markers: self.markers, ..Self::new(self.server.clone(), self.last_heard) };
    }

    /// Returns whether every request has its response.
    pub(crate) fn has_all_responses(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns whether the server has owed a reply for too long.
    pub(crate) fn is_lost(&self, now: Instant) -> bool {
        self.connected && !self.pending.is_empty() && now.duration_since(self.last_heard) > SILENCE
    }

    /// Queues a room to subscribe to.
    pub(crate) fn subscribe(&mut self, slot: u16, room: RoomName) {
        self.subscribes.push_back((slot, room));
    }

    /// Takes the rooms that wait to be subscribed to, because they now belong to another server.
    pub(crate) fn take_subscribes(&mut self) -> VecDeque<(u16, RoomName)> {
        std::mem::take(&mut self.subscribes)
    }

    /// Sorts the rooms by slot, so that the rooms of one slot go into one SSUBSCRIBE.
    pub(crate) fn sort_subscribes(&mut self) {
        self.subscribes.make_contiguous().sort_by_key(|(slot, _)| *slot);
    }

    /// Queues a room to unsubscribe from. In a cluster, Redis may reject this because the slot has
    /// moved, which has already ended the subscription.
    pub(crate) fn unsubscribe(&mut self, slot: u16, room: RoomName) {
        if self.connected {
            self.unsubscribes.push_back((slot, room));
        }
    }

    /// Sends as many requests to unsubscribe as the window allows.
    pub(crate) fn send_unsubscribes(&mut self, keys: &Keys, has_slots: bool, now: Instant) {
        while self.may_send()
            && let Some(rooms) = next_group(&mut self.unsubscribes, self.window, has_slots)
        {
            for room in &rooms {
                *self.leaving.entry(room.clone()).or_default() += 1;
            }
            self.send(keys, Request::Unsubscribe(rooms), now);
        }
    }

    /// Takes the rooms to subscribe to with the next request, if the window allows one.
    pub(crate) fn next_subscribes(&mut self, has_slots: bool) -> Option<Vec<RoomName>> {
        if !self.may_send() || !self.unsubscribes.is_empty() {
            return None;
        }
        next_group(&mut self.subscribes, self.window, has_slots)
    }

    fn may_send(&self) -> bool {
        self.connected && self.in_flight < self.window
    }

    /// Writes a request. Repairs are sent whatever is in flight, because members wait for them. A
    /// room has at most one repair.
    pub(crate) fn send(&mut self, keys: &Keys, request: Request, now: Instant) {
        if self.pending.is_empty() {
            self.last_heard = now;
        }
        let rooms = match &request {
            Request::Subscribe(rooms) => {
                self.put_channels("SSUBSCRIBE", keys, rooms.iter().map(|(room, _)| room));
                rooms.as_slice()
            }
            Request::Repair(room, from) => &[(room.clone(), Some(*from))],
            Request::Unsubscribe(rooms) => {
                self.put_channels("SUNSUBSCRIBE", keys, rooms.iter());
                &[]
            }
            Request::Ping => &[],
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
        self.in_flight += request.rooms();
        self.markers += 1;
        let marker = format!("marker {}", self.markers);
        put_command(&mut self.output, ["ECHO", &marker].iter());
        self.pending.push_back((marker.into(), request));
    }

    fn put_channels<'a>(&mut self, command: &str, keys: &Keys, rooms: impl Iterator<Item = &'a RoomName>) {
        let channels = rooms.map(|room| keys.channel(room));
        let words: Vec<_> = std::iter::once(command.to_owned()).chain(channels).collect();
        put_command(&mut self.output, words.iter());
    }

    /// Sends a request that only requests a reply, unless another request is pending.
    pub(crate) fn ping(&mut self, keys: &Keys, now: Instant) {
        if self.connected && self.pending.is_empty() {
            self.send(keys, Request::Ping, now);
        }
    }

    /// Returns whether this node is unsubscribing from a room.
    pub(crate) fn is_leaving(&self, room: &str) -> bool {
        self.leaving.contains_key(room)
    }

    /// Records that anything arrived from the server.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Collects a reply. When the last reply to a request has arrived, returns the request and all
    /// its replies.
    pub(crate) fn on_reply(&mut self, reply: BytesFrame) -> Option<(Request, Vec<BytesFrame>)> {
        let is_marker = matches!((&reply, self.pending.front()), (BytesFrame::BlobString { data, .. }, Some((marker, _))) if data == marker);
        if !is_marker {
            self.replies.push(reply);
            return None;
        }
        let (_, request) = self.pending.pop_front()?;
        self.window = (self.window + 1).min(MAX_IN_FLIGHT);
        self.in_flight -= request.rooms();
        if let Request::Unsubscribe(rooms) = &request {
            for room in rooms {
                if let Some(count) = self.leaving.get_mut(room).filter(|count| **count > 1) {
                    *count -= 1;
                } else {
                    self.leaving.remove(room);
                }
            }
        }
        Some((request, std::mem::take(&mut self.replies)))
    }

    /// How many rooms the pending requests concern.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes the output to write.
    pub(crate) fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }
}

impl Request {
    /// Returns how many rooms the request concerns.
    fn rooms(&self) -> usize {
        match self {
            Self::Subscribe(rooms) => rooms.len(),
            Self::Unsubscribe(rooms) => rooms.len(),
            Self::Repair(..) => 1,
            Self::Ping => 0,
        }
    }
}

/// Takes the next rooms that one command may name. In a cluster, these are rooms of one slot.
fn next_group(queue: &mut VecDeque<(u16, RoomName)>, window: usize, has_slots: bool) -> Option<Vec<RoomName>> {
    let (first, _) = *queue.front()?;
    let fits = |(slot, _): &&(u16, RoomName)| !has_slots || *slot == first;
    let count = queue.iter().take(MAX_GROUP.min(window)).take_while(fits).count();
    Some(queue.drain(..count).map(|(_, room)| room).collect())
}

/// The response for one room.
#[derive(Debug)]
pub(crate) struct Response {
    /// The value of the room's position key.
    pub(crate) position: Option<Bytes>,
    /// The messages of the room's history, if they were requested.
    pub(crate) history: Vec<Bytes>,
}

impl Response {
    /// Reads the responses for rooms from the replies to a request. Each room has its own result,
    /// because a key that is being moved to another server affects no other room. The inner error
    /// concerns a room, and the outer one the subscription. Both are Redis' own.
    pub(crate) fn read(
        requested: &[(RoomName, Option<u64>)],
        mut replies: Vec<BytesFrame>,
    ) -> Result<Vec<Result<Self, String>>, String> {
        if replies.len() > requested.len() {
            // A confirmed subscription has no reply.
            return Err(error_of(&replies.swap_remove(0)).unwrap_or_else(unexpected));
        }
        let mut replies = replies.into_iter();
        let response =
            |(_, from): &(_, Option<_>)| Self::of_room(from.is_some(), replies.next().ok_or_else(unexpected)?);
        Ok(requested.iter().map(response).collect())
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
    "an unexpected reply".to_owned()
}
