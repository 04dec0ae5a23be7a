//! Which rooms a node reads, from which server, and how far: the state machine of the subscriber. No I/O;
//! time is an argument.
//!
//! ```text
//!            its server is connected        Redis confirmed, and told the position
//!  Queued ─────────────────────────▶ Asked ─────────────────────────▶ Subscribed
//!    ▲                                 │                                  │
//!    └─────────────────────────────────┴──────────────────────────────────┘
//!      the connection ended · Redis refused (MOVED, …) · the slot moved away (sunsubscribe)
//! ```
//!
//! A room keeps its [`Reader`] through all of it. When it is subscribed again, the history is asked for what
//! was missed meanwhile, and only then do newer events go on: the members see one unbroken order.

#[cfg(test)]
mod inspection;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::config::Server;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::{BrokerError, Publication, RoomName};

use crate::metrics::RedisMetrics;
use crate::state::keys::{Keys, is_of_nodes};
use crate::state::message::{DecodeError, Message};
use crate::state::position::{Progress, Reader, Stored};
use crate::state::resp::Incoming;
use crate::state::room::{Room, SessionIndex, Stage, Waiter};
use crate::state::seal::Seal;
use crate::state::session::{Answer, Ask, ServerSession};
use crate::state::topology::Topology;

/// How long a subscription may take before those who wait for it are told that it failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// How often dropped messages are logged: whoever sends them must not fill the log.
const DROPPED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All rooms of a node, and all servers.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    keys: Keys,
    seal: Seal,
    unsubscribe_delay: Duration,
    metrics: RedisMetrics,
    rooms: HashMap<RoomName, Room>,
    sessions: Vec<ServerSession>,
    topology: Option<Topology>,
    /// Rooms whose slot has no known owner.
    unassigned: VecDeque<(u16, RoomName)>,
    topology_wanted: bool,
    /// When a dropped message was last logged.
    dropped_logged_at: Option<Instant>,
    /// Rooms with waiters, and rooms that are not wanted, each with the time when that ends.
    joining: VecDeque<(Instant, RoomName)>,
    unsubscribing: VecDeque<(Instant, RoomName)>,
    events: Vec<Publication>,
}

/// A server, as the subscriber's task needs to know it.
pub(crate) struct Known {
    pub(crate) index: SessionIndex,
    pub(crate) server: Server,
    /// Whether it owns slots now.
    pub(crate) owns: bool,
    pub(crate) is_connected: bool,
}

impl Subscriptions {
    pub(crate) fn new(keys: Keys, seal: Seal, unsubscribe_delay: Duration, metrics: RedisMetrics) -> Self {
        Self {
            keys,
            seal,
            dropped_logged_at: None,
            unsubscribe_delay,
            metrics,
            rooms: HashMap::new(),
            sessions: Vec::new(),
            topology: None,
            unassigned: VecDeque::new(),
            topology_wanted: true,
            joining: VecDeque::new(),
            unsubscribing: VecDeque::new(),
            events: Vec::new(),
        }
    }

    // === what the hub wants ===

    /// Starts to read a room. `true`: it is read already; else the waiter is told.
    pub(crate) fn subscribe(&mut self, room: &RoomName, waiter: Waiter, now: Instant) -> bool {
        let entry = self.rooms.entry(room.clone());
        let is_new = matches!(entry, std::collections::hash_map::Entry::Vacant(_));
        let state = entry.or_insert_with(|| Room::new(room));
        state.kept_until = None;
        if matches!(state.stage, Stage::Subscribed { .. }) {
            return true;
        }
        let deadline = now + ANSWER_DEADLINE;
        state.wait(deadline, waiter);
        self.joining.push_back((deadline, room.clone()));
        if is_new {
            let slot = state.slot;
            self.enqueue(slot, room.clone());
            self.ask_all(now);
        }
        false
    }

    /// Stops to deliver a room's events. It is read on for a while: members who come back at once cost nothing.
    pub(crate) fn unsubscribe(&mut self, room: &RoomName, now: Instant) {
        if let Some(state) = self.rooms.get_mut(room) {
            let until = now + self.unsubscribe_delay;
            state.kept_until = Some(until);
            self.unsubscribing.push_back((until, room.clone()));
        }
    }

    // === what the servers do ===

    /// The servers and their slots are these. Rooms that wait are sorted anew; those that are subscribed stay
    /// where they are until their server ends it, which Redis does when it has given their slot away.
    pub(crate) fn set_topology(&mut self, topology: Topology, now: Instant) {
        for server in topology.servers() {
            if !self.sessions.iter().any(|session| session.server == server) {
                self.sessions.push(ServerSession::new(server, now));
            }
        }
        self.topology = Some(topology);
        let mut waiting = mem::take(&mut self.unassigned);
        waiting.extend(self.sessions.iter_mut().flat_map(ServerSession::take_queue));
        for (slot, room) in waiting {
            // It may have been left meanwhile.
            if self.rooms.get(&room).is_some_and(|state| state.stage == Stage::Queued) {
                self.enqueue(slot, room);
            }
        }
        self.sessions.iter_mut().for_each(ServerSession::sort_queue);
        self.ask_all(now);
    }

    /// All servers that ever owned something.
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

    /// One of them.
    pub(crate) fn server(&self, session: SessionIndex) -> &Server {
        &self.sessions[session].server
    }

    /// What one of them answered when it last refused a subscription.
    pub(crate) fn refusal(&self, session: SessionIndex) -> Option<&String> {
        self.sessions[session].refusal.as_ref()
    }

    pub(crate) fn on_connected(&mut self, session: SessionIndex, now: Instant) {
        self.sessions[session].on_connected(now);
        self.ask_all(now);
    }

    /// All its rooms wait again. `true`: it was connected.
    pub(crate) fn on_disconnected(&mut self, session: SessionIndex) -> bool {
        let was_connected = self.sessions[session].is_connected();
        self.sessions[session].on_disconnected();
        let of_session = |(_, room): &(&RoomName, &mut Room)| room.stage.session() == Some(session);
        let lost: Vec<_> = self
            .rooms
            .iter_mut()
            .filter(of_session)
            .map(|(name, room)| {
                room.stage = Stage::Queued;
                (room.slot, name.clone())
            })
            .collect();
        self.metrics.resubscriptions.inc_by(lost.len() as u64);
        for (slot, room) in lost {
            self.enqueue(slot, room);
        }
        self.sessions.iter_mut().for_each(ServerSession::sort_queue);
        self.topology_wanted = true;
        was_connected
    }

    /// Takes what a server sent.
    pub(crate) fn on_incoming(&mut self, session: SessionIndex, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Message { channel, payload } => self.on_message(&channel, payload, now),
            Incoming::Subscribed { channel } => {
                let room = self.room_of(&channel).and_then(|name| self.rooms.get_mut(&name));
                if let Some(Room { stage: Stage::Asked { confirmed, .. }, .. }) = room {
                    *confirmed = true;
                }
            }
            Incoming::Unsubscribed { channel } => self.on_unsubscribed(session, &channel),
            Incoming::Reply(reply) => {
                if let Some((ask, replies)) = self.sessions[session].on_reply(reply) {
                    self.on_answers(session, ask, replies, now);
                    self.ask_all(now);
                }
            }
        }
    }

    /// A server said something, so it is there.
    pub(crate) fn on_heard(&mut self, session: SessionIndex, now: Instant) {
        self.sessions[session].on_heard(now);
    }

    /// Nobody was listened to for a while: nobody's silence counts.
    pub(crate) fn on_paused(&mut self, now: Instant) {
        self.sessions.iter_mut().for_each(|session| session.on_heard(now));
    }

    // === time ===

    /// Ends what has lasted long enough, and asks silent servers for a sign of life. Those that gave none
    /// are lost, and returned.
    pub(crate) fn on_tick(&mut self, now: Instant) -> Vec<SessionIndex> {
        while let Some((_, room)) = pop_due(&mut self.joining, now) {
            if let Some(state) = self.rooms.get_mut(&room) {
                let reason = format!("Redis did not confirm the subscription within {ANSWER_DEADLINE:?}");
                state.answer_until(now, &Err(BrokerError::Unavailable { reason }));
            }
        }
        while let Some((_, room)) = pop_due(&mut self.unsubscribing, now) {
            if self.rooms.get(&room).is_some_and(|state| state.kept_until.is_some_and(|until| until <= now))
                && let Some(state) = self.rooms.remove(&room)
            {
                // A server may have taken the subscription of a room that waits, and refused to say more of it.
                let may_have = |session| state.stage.session().is_none_or(|own| own == session);
                for (_, session) in self.sessions.iter_mut().enumerate().filter(|(session, _)| may_have(*session)) {
                    session.unsubscribe(&self.keys, &room, now);
                }
            }
        }
        for session in &mut self.sessions {
            session.ping(&self.keys, now);
        }
        self.ask_all(now);
        (0..self.sessions.len()).filter(|session| self.sessions[*session].is_lost(now)).collect()
    }

    /// Asks every server something, so that every event that it has accepted by now comes before the answer.
    pub(crate) fn ask_whether_all_came(&mut self, now: Instant) {
        for session in self.sessions.iter_mut().filter(|session| session.is_connected()) {
            session.ask(&self.keys, Ask::Ping, now);
        }
    }

    /// Whether nothing is asked that was not answered.
    pub(crate) fn has_all_answers(&self) -> bool {
        self.sessions.iter().all(ServerSession::has_all_answers)
    }

    // === what comes of it ===

    /// What is to be written to a server.
    pub(crate) fn take_output(&mut self, session: SessionIndex) -> Option<Bytes> {
        self.sessions[session].take_output()
    }

    /// The events to deliver, in order.
    pub(crate) fn take_events(&mut self) -> Vec<Publication> {
        mem::take(&mut self.events)
    }

    /// Whether the topology must be asked for, because rooms are not where it says.
    pub(crate) fn take_topology_wanted(&mut self) -> bool {
        mem::take(&mut self.topology_wanted)
    }

    // === within ===

    /// The room of a channel, if it is one of ours.
    fn room_of(&self, channel: &[u8]) -> Option<RoomName> {
        let room = self.keys.room_of(std::str::from_utf8(channel).ok()?)?;
        self.rooms.get_key_value(room).map(|(name, _)| name.clone())
    }

    fn enqueue(&mut self, slot: u16, room: RoomName) {
        let owner = self.topology.as_ref().and_then(|topology| topology.owner(slot));
        match self.sessions.iter_mut().find(|session| Some(&session.server) == owner) {
            Some(session) => session.enqueue(slot, room),
            None => {
                self.unassigned.push_back((slot, room));
                self.topology_wanted = true;
            }
        }
    }

    /// Asks every server about the rooms that wait for it, as many as may be asked about at once.
    fn ask_all(&mut self, now: Instant) {
        let has_slots = self.topology.as_ref().is_some_and(Topology::has_slots);
        for (index, session) in self.sessions.iter_mut().enumerate() {
            while let Some(group) = session.next_group(has_slots) {
                let mut asked = Vec::with_capacity(group.len());
                for name in group {
                    // It may have been left meanwhile.
                    if let Some(room) = self.rooms.get_mut(&name).filter(|room| room.stage == Stage::Queued) {
                        room.stage = Stage::Asked { session: index, confirmed: false };
                        let from = room.reader.resume_from();
                        if from.is_some() {
                            room.reader.start_repair();
                        }
                        asked.push((name, from));
                    }
                }
                if !asked.is_empty() {
                    session.ask(&self.keys, Ask::Subscribe(asked), now);
                }
            }
        }
    }

    fn on_message(&mut self, channel: &[u8], payload: Bytes, now: Instant) {
        let Some(name) = self.room_of(channel) else { return };
        match Message::decode(payload, channel, &self.seal) {
            Ok(message) => self.advance(&name, now, |reader, progress| reader.on_live(message, progress)),
            Err(error) => self.drop_message(&name, error, now),
        }
    }

    fn drop_message(&mut self, room: &RoomName, error: DecodeError, now: Instant) {
        self.metrics.decode_errors.inc();
        if self.dropped_logged_at.is_none_or(|at| now.duration_since(at) >= DROPPED_LOG_INTERVAL) {
            self.dropped_logged_at = Some(now);
            tracing::warn!(%room, %error, "dropped a message on a room's channel; for 10 s, others are only counted");
        }
    }

    /// Redis gave the room's slot to another server, unless we left.
    fn on_unsubscribed(&mut self, session: SessionIndex, channel: &[u8]) {
        if let Some(name) = self.room_of(channel)
            && !self.sessions[session].is_leaving(&name)
        {
            self.queue_again(session, &name);
        }
    }

    /// The room waits again, if this server had it. Where it belongs must be asked first.
    fn queue_again(&mut self, session: SessionIndex, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name).filter(|room| room.stage.session() == Some(session)) {
            room.stage = Stage::Queued;
            self.unassigned.push_back((room.slot, name.clone()));
            self.topology_wanted = true;
            self.metrics.resubscriptions.inc();
        }
    }

    fn on_answers(&mut self, session: SessionIndex, ask: Ask, replies: Vec<BytesFrame>, now: Instant) {
        let (rooms, is_repair) = match ask {
            Ask::Subscribe(rooms) => (rooms, false),
            Ask::Repair(room, from) => (vec![(room, Some(from))], true),
            Ask::Leave(_) | Ask::Ping => return,
        };
        let answers =
            Answer::read(&rooms, replies).unwrap_or_else(|error| rooms.iter().map(|_| Err(error.clone())).collect());
        for ((room, from), answer) in rooms.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    if is_repair || self.on_subscribed(session, room) {
                        self.on_answer(session, room, *from, answer, now);
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

    /// The answer to a SSUBSCRIBE came: the room is read from now on, if the confirmation came before.
    fn on_subscribed(&mut self, session: SessionIndex, name: &RoomName) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        if room.stage != (Stage::Asked { session, confirmed: true }) {
            self.queue_again(session, name);
            return false;
        }
        room.stage = Stage::Subscribed { session };
        room.answer_all();
        true
    }

    /// The position, and the history if it was asked for, of a room that is read from here.
    fn on_answer(&mut self, session: SessionIndex, name: &RoomName, from: Option<u64>, answer: Answer, now: Instant) {
        let subscribed = |room: &&mut Room| room.stage == Stage::Subscribed { session };
        let Some(room) = self.rooms.get_mut(name).filter(subscribed) else { return };
        let stored = answer.position.as_deref().and_then(Stored::parse);
        match from {
            None => room.reader.on_subscribed(stored),
            Some(from) => {
                let channel = self.keys.channel(name);
                let mut history = Vec::with_capacity(answer.history.len());
                for message in answer.history {
                    match Message::decode(message, channel.as_bytes(), &self.seal) {
                        Ok(message) => history.push(message),
                        Err(error) => self.drop_message(name, error, now),
                    }
                }
                self.advance(name, now, |reader, progress| reader.on_repair(from, stored.as_ref(), &history, progress));
            }
        }
    }

    /// Lets a room's reader take a step, and deals with what comes of it.
    fn advance(&mut self, name: &RoomName, now: Instant, step: impl FnOnce(&mut Reader, &mut Progress)) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut progress = Progress::default();
        step(&mut room.reader, &mut progress);
        self.metrics.repaired.inc_by(progress.repaired);
        self.metrics.duplicates.inc_by(progress.duplicates);
        self.metrics.history_resets.inc_by(u64::from(progress.history_reset));
        if progress.lost > 0 && !is_of_nodes(name) {
            self.metrics.lost.inc_by(progress.lost);
            tracing::warn!(room = %name, events = progress.lost, "events were missed and are no longer in the history");
        }
        if room.kept_until.is_none() {
            let publications =
                progress.events.into_iter().map(|(origin, event)| event.into_publication(origin, name.clone()));
            self.events.extend(publications);
        }
        if let (Some(from), Some(session)) = (progress.repair_from, room.stage.session()) {
            self.metrics.gaps.inc();
            self.sessions[session].ask(&self.keys, Ask::Repair(name.clone(), from), now);
        }
    }
}

fn pop_due(queue: &mut VecDeque<(Instant, RoomName)>, now: Instant) -> Option<(Instant, RoomName)> {
    queue.pop_front_if(|(due, _)| *due <= now)
}
