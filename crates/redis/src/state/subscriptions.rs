//! Tracks which rooms a node reads, from which server, and how far. This is the state machine of
//! the subscriber.
//!
//! ```text
//!           its server is connected           Redis confirmed, and sent the position
//!  Queued ─────────────────────────▶ Requested ─────────────────────────▶ Subscribed
//!    ▲                                   │                                    │
//!    └───────────────────────────────────┴────────────────────────────────────┘
//!      the connection ended · Redis refused (MOVED, …) · the slot moved away (sunsubscribe)
//! ```
//!
//! A room keeps its [`Reader`](super::position::Reader) in all stages. When the node subscribes to
//! it again, it reads the missed events from the history before it continues with newer ones.
//! Members therefore see one continuous order.

#[cfg(test)]
mod inspection;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::config::Server;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::{BrokerError, Publication, RoomName};

use crate::metrics::RedisMetrics;
use crate::state::delivery::Delivery;
use crate::state::keys::Keys;
use crate::state::position::{Progress, Reader};
use crate::state::resp::Incoming;
use crate::state::room::{Room, SessionIndex, Stage, Waiter};
use crate::state::seal::Seal;
use crate::state::session::{Known, Request, Response, ServerSession};
use crate::state::stored::Stored;
use crate::state::topology::Topology;

/// How long a subscription may take before it fails for its callers.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(3);

/// All rooms of a node, and all servers.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    keys: Keys,
    unsubscribe_delay: Duration,
    metrics: RedisMetrics,
    delivery: Delivery,
    rooms: HashMap<RoomName, Room>,
    sessions: Vec<ServerSession>,
    topology: Option<Topology>,
    /// Rooms whose slot has no known owner.
    unassigned: VecDeque<(u16, RoomName)>,
    topology_wanted: bool,
    /// Rooms that callers wait for, and rooms that were left, each with the time when this ends.
    joining: VecDeque<(Instant, RoomName)>,
    unsubscribing: VecDeque<(Instant, RoomName)>,
}

impl Subscriptions {
    pub(crate) fn new(keys: Keys, seal: Seal, unsubscribe_delay: Duration, metrics: RedisMetrics) -> Self {
        Self {
            keys,
            unsubscribe_delay,
            delivery: Delivery::new(seal, metrics.clone()),
            metrics,
            rooms: HashMap::new(),
            sessions: Vec::new(),
            topology: None,
            unassigned: VecDeque::new(),
            topology_wanted: true,
            joining: VecDeque::new(),
            unsubscribing: VecDeque::new(),
        }
    }

    // === what the hub subscribes to ===

    /// Starts to read a room. Returns `true` if the room is already being read. Otherwise the
    /// waiter receives the outcome.
    pub(crate) fn subscribe(&mut self, room: &RoomName, waiter: Waiter, now: Instant) -> bool {
        let entry = self.rooms.entry(room.clone());
        let is_new = matches!(entry, Entry::Vacant(_));
        let state = entry.or_insert_with(|| Room::new(room));
        state.kept_until = None;
        if matches!(state.stage, Stage::Subscribed { .. }) {
            return true;
        }
        let deadline = now + SUBSCRIBE_DEADLINE;
        state.wait(deadline, waiter);
        self.joining.push_back((deadline, room.clone()));
        if is_new {
            let slot = state.slot;
            self.enqueue(slot, room.clone());
            self.send_requests(now);
        }
        false
    }

    /// Stops delivering a room's events. The room is still read for some time, so that members who
    /// return soon cost nothing.
    pub(crate) fn unsubscribe(&mut self, room: &RoomName, now: Instant) {
        if let Some(state) = self.rooms.get_mut(room) {
            let until = now + self.unsubscribe_delay;
            state.kept_until = Some(until);
            self.unsubscribing.push_back((until, room.clone()));
        }
    }

    /// Returns how many rooms are kept in memory, including those that were unsubscribed lately.
    pub(crate) fn room_count(&self) -> usize {
        self.rooms.len()
    }

    // === what the servers do ===

    /// Sets the servers and their slots. Waiting rooms are assigned anew. Subscribed rooms stay
    /// until their server ends the subscription, which Redis does when it has given away their
    /// slot.
    pub(crate) fn set_topology(&mut self, topology: Topology, now: Instant) {
        for server in topology.servers() {
            if !self.sessions.iter().any(|session| session.server == server) {
                self.sessions.push(ServerSession::new(server, now));
            }
        }
        self.topology = Some(topology);
        let mut waiting = mem::take(&mut self.unassigned);
        waiting.extend(self.sessions.iter_mut().flat_map(ServerSession::take_subscribes));
        for (slot, room) in waiting {
            // The hub may have left the room meanwhile.
            if self.rooms.get(&room).is_some_and(|state| state.stage == Stage::Queued) {
                self.enqueue(slot, room);
            }
        }
        self.sessions.iter_mut().for_each(ServerSession::sort_subscribes);
        self.send_requests(now);
    }

    /// Returns all servers that ever owned something.
    pub(crate) fn servers(&self) -> Vec<Known> {
        let owners = self.topology.as_ref().map(Topology::servers).unwrap_or_default();
        let known = |(index, session): (SessionIndex, &ServerSession)| Known {
            index,
            server: session.server.clone(),
            owns: owners.contains(&session.server),
            is_connected: session.is_connected(),
        };
        self.sessions.iter().enumerate().map(known).collect()
    }

    /// Returns the server of a session.
    pub(crate) fn server(&self, session: SessionIndex) -> &Server {
        &self.sessions[session].server
    }

    /// Returns a server's reply when it last rejected a subscription.
    pub(crate) fn refusal(&self, session: SessionIndex) -> Option<&String> {
        self.sessions[session].refusal.as_ref()
    }

    pub(crate) fn on_connected(&mut self, session: SessionIndex, now: Instant) {
        self.sessions[session].on_connected(now);
        self.send_requests(now);
    }

    /// Makes all rooms of the server wait again. Returns whether it was connected.
    pub(crate) fn on_disconnected(&mut self, session: SessionIndex) -> bool {
        let was_connected = self.sessions[session].is_connected();
        self.sessions[session].on_disconnected();
        let mut lost = Vec::new();
        for (name, room) in self.rooms.iter_mut().filter(|(_, room)| room.stage.session() == Some(session)) {
            room.stage = Stage::Queued;
            lost.push((room.slot, name.clone()));
        }
        self.metrics.resubscriptions.inc_by(lost.len() as u64);
        for (slot, room) in lost {
            self.enqueue(slot, room);
        }
        self.sessions.iter_mut().for_each(ServerSession::sort_subscribes);
        self.topology_wanted = true;
        was_connected
    }

    /// Processes what a server sent.
    pub(crate) fn on_incoming(&mut self, session: SessionIndex, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Message { channel, payload } => {
                if let Some(name) = self.room_of(&channel)
                    && let Some(message) = self.delivery.decode(&name, &channel, payload, now)
                {
                    self.advance(&name, now, |reader, progress| reader.on_live(message, progress));
                }
            }
            Incoming::Subscribed { channel } => {
                let room = self.room_of(&channel).and_then(|name| self.rooms.get_mut(&name));
                if let Some(Room { stage: Stage::Requested { confirmed, .. }, .. }) = room {
                    *confirmed = true;
                }
            }
            Incoming::Unsubscribed { channel } => self.on_unsubscribed(session, &channel),
            Incoming::Reply(reply) => {
                if let Some((request, replies)) = self.sessions[session].on_reply(reply) {
                    self.on_response(session, request, replies, now);
                    self.send_requests(now);
                }
            }
        }
    }

    /// Records that a server sent something, so its connection works.
    pub(crate) fn on_heard(&mut self, session: SessionIndex, now: Instant) {
        self.sessions[session].on_heard(now);
    }

    /// Records that nothing was read for a while, so silence proves nothing.
    pub(crate) fn on_paused(&mut self, now: Instant) {
        self.sessions.iter_mut().for_each(|session| session.on_heard(now));
    }

    // === time ===

    /// Ends what has lasted long enough, and pings silent servers. Returns the servers that have
    /// not replied, whose connections are lost.
    pub(crate) fn on_tick(&mut self, now: Instant) -> Vec<SessionIndex> {
        while let Some((_, room)) = self.joining.pop_front_if(|(due, _)| *due <= now) {
            if let Some(state) = self.rooms.get_mut(&room) {
                let reason = format!("Redis did not confirm the subscription within {SUBSCRIBE_DEADLINE:?}");
                state.answer_until(now, &Err(BrokerError::Unavailable { reason }));
            }
        }
        while let Some((_, room)) = self.unsubscribing.pop_front_if(|(due, _)| *due <= now) {
            if self.rooms.get(&room).is_some_and(|state| state.kept_until.is_some_and(|until| until <= now))
                && let Some(state) = self.rooms.remove(&room)
            {
                // A server may have accepted the subscription to a waiting room, and then rejected
                // the request for its position.
                let may_have = |session| state.stage.session().is_none_or(|own| own == session);
                for (_, session) in self.sessions.iter_mut().enumerate().filter(|(session, _)| may_have(*session)) {
                    session.unsubscribe(state.slot, room.clone());
                }
            }
        }
        self.send_requests(now);
        self.sessions.iter_mut().for_each(|session| session.ping(&self.keys, now));
        (0..self.sessions.len()).filter(|session| self.sessions[*session].is_lost(now)).collect()
    }

    /// Pings every server. All events that it has accepted by now arrive before its reply.
    pub(crate) fn ping_all(&mut self, now: Instant) {
        for session in self.sessions.iter_mut().filter(|session| session.is_connected()) {
            session.send(&self.keys, Request::Ping, now);
        }
    }

    /// Returns whether every request has its response.
    pub(crate) fn has_all_responses(&self) -> bool {
        self.sessions.iter().all(ServerSession::has_all_responses)
    }

    // === output ===

    /// Takes the output to write to a server.
    pub(crate) fn take_output(&mut self, session: SessionIndex) -> Option<Bytes> {
        self.sessions[session].take_output()
    }

    /// Takes the events to deliver, in order.
    pub(crate) fn take_events(&mut self) -> Vec<Publication> {
        self.delivery.take_events()
    }

    /// Returns whether the topology must be requested, because rooms are not on the servers that it
    /// names.
    pub(crate) fn take_topology_wanted(&mut self) -> bool {
        mem::take(&mut self.topology_wanted)
    }

    // === within ===

    /// Returns the room of a channel, if it is one of this cluster.
    fn room_of(&self, channel: &[u8]) -> Option<RoomName> {
        let room = self.keys.room_of(std::str::from_utf8(channel).ok()?)?;
        self.rooms.get_key_value(room).map(|(name, _)| name.clone())
    }

    fn enqueue(&mut self, slot: u16, room: RoomName) {
        let owner = self.topology.as_ref().and_then(|topology| topology.owner(slot));
        match self.sessions.iter_mut().find(|session| Some(&session.server) == owner) {
            Some(session) => session.subscribe(slot, room),
            None => {
                self.unassigned.push_back((slot, room));
                self.topology_wanted = true;
            }
        }
    }

    /// Sends each server the requests that wait for it, as many as may be pending.
    fn send_requests(&mut self, now: Instant) {
        let has_slots = self.topology.as_ref().is_some_and(Topology::has_slots);
        for (index, session) in self.sessions.iter_mut().enumerate() {
            session.send_unsubscribes(&self.keys, has_slots, now);
            while let Some(group) = session.next_subscribes(has_slots) {
                let mut requested = Vec::with_capacity(group.len());
                for name in group {
                    // The hub may have left the room meanwhile.
                    if let Some(room) = self.rooms.get_mut(&name).filter(|room| room.stage == Stage::Queued) {
                        room.stage = Stage::Requested { session: index, confirmed: false };
                        let from = room.reader.resume_from();
                        if from.is_some() {
                            room.reader.start_repair();
                        }
                        requested.push((name, from));
                    }
                }
                if !requested.is_empty() {
                    session.send(&self.keys, Request::Subscribe(requested), now);
                }
            }
        }
    }

    /// Processes the end of a subscription. Redis has given the room's slot to another server,
    /// unless this node unsubscribed.
    fn on_unsubscribed(&mut self, session: SessionIndex, channel: &[u8]) {
        if let Some(name) = self.room_of(channel)
            && !self.sessions[session].is_leaving(&name)
        {
            self.queue_again(session, &name);
        }
    }

    /// Makes a room wait again, if this server had it. Its owner must be looked up first.
    fn queue_again(&mut self, session: SessionIndex, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name).filter(|room| room.stage.session() == Some(session)) {
            room.stage = Stage::Queued;
            self.unassigned.push_back((room.slot, name.clone()));
            self.topology_wanted = true;
            self.metrics.resubscriptions.inc();
        }
    }

    fn on_response(&mut self, session: SessionIndex, request: Request, replies: Vec<BytesFrame>, now: Instant) {
        let (rooms, is_repair) = match request {
            Request::Subscribe(rooms) => (rooms, false),
            Request::Repair(room, from) => (vec![(room, Some(from))], true),
            Request::Unsubscribe(_) | Request::Ping => return,
        };
        let responses =
            Response::read(&rooms, replies).unwrap_or_else(|error| rooms.iter().map(|_| Err(error.clone())).collect());
        for ((room, from), response) in rooms.iter().zip(responses) {
            match response {
                Ok(response) => {
                    if is_repair || self.on_subscribed(session, room) {
                        self.on_position(session, room, *from, response, now);
                    }
                }
                Err(error) => {
                    let server = &self.sessions[session].server;
                    tracing::debug!(%server, %room, %error, "Redis refused a subscription");
                    self.sessions[session].refusal = Some(error);
                    self.queue_again(session, room);
                }
            }
        }
    }

    /// Processes the response to SSUBSCRIBE. If the confirmation has arrived before it, the room is
    /// read from now on.
    fn on_subscribed(&mut self, session: SessionIndex, name: &RoomName) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        if room.stage != (Stage::Requested { session, confirmed: true }) {
            self.queue_again(session, name);
            return false;
        }
        room.stage = Stage::Subscribed { session };
        room.answer_all();
        true
    }

    /// Processes the position of a room that is read from this server, and its history if it was
    /// requested.
    fn on_position(
        &mut self,
        session: SessionIndex,
        name: &RoomName,
        from: Option<u64>,
        response: Response,
        now: Instant,
    ) {
        let subscribed = |room: &&mut Room| room.stage == Stage::Subscribed { session };
        let Some(room) = self.rooms.get_mut(name).filter(subscribed) else { return };
        let stored = response.position.as_deref().and_then(Stored::parse);
        match from {
            None => room.reader.on_subscribed(stored),
            Some(from) => {
                let channel = self.keys.channel(name);
                let decode = |message| self.delivery.decode(name, channel.as_bytes(), message, now);
                let history: Vec<_> = response.history.into_iter().filter_map(decode).collect();
                self.advance(name, now, |reader, progress| reader.on_repair(from, stored.as_ref(), &history, progress));
            }
        }
    }

    /// Runs a step of a room's reader, delivers the resulting events, and requests those that are
    /// missing.
    fn advance(&mut self, name: &RoomName, now: Instant, step: impl FnOnce(&mut Reader, &mut Progress)) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut progress = Progress::default();
        step(&mut room.reader, &mut progress);
        if let (Some(from), Some(session)) = (progress.repair_from, room.stage.session()) {
            self.metrics.gaps.inc();
            self.sessions[session].send(&self.keys, Request::Repair(name.clone(), from), now);
        }
        self.delivery.deliver(name, progress, room.kept_until.is_none());
    }
}
