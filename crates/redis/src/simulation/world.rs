//! A node's subscriptions among servers that fail.

mod checks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast_core::{BrokerError, NodeId, Position, RoomName};
use roomcast_protocol::Name;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::script::PublishedMessage;
use super::servers::Servers;
use crate::metrics::RedisMetrics;
use crate::state::message::Encoder;
use crate::state::resp::Incoming;
use crate::state::room::SessionIndex;
use crate::state::seal::Seal;
use crate::state::subscriptions::Subscriptions;
use crate::state::topology::Topology;

pub(super) const UNSUBSCRIBE_DELAY_MS: u64 = 5000;

/// How long the publisher repeats a publish.
const RETRY_MS: u64 = 3000;

/// How many rounds of requests and replies there may be until nothing is left to request.
const MAX_EXCHANGES: usize = 100;

/// The time between two ticks.
pub(super) const TICK_MS: u64 = 250;

/// An event's origin, and the event's number at that origin.
type Event = (u64, u64);

/// A room, and what the hub has done with it.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: RoomName,
    /// The room's retention: the number of events, and the time.
    retention: (u64, u64),
    is_wanted: bool,
    /// How many events of all rooms had been accepted when the room's subscription was confirmed.
    since: Option<usize>,
    /// The offset before the first event that is read.
    base: Option<u64>,
    answer: Option<(u64, oneshot::Receiver<Result<(), BrokerError>>)>,
    pub(super) refusals: usize,
    delivered: Vec<Event>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) servers: Servers,
    pub(super) subscriptions: Subscriptions,
    pub(super) metrics: RedisMetrics,
    pub(super) rooms: Vec<Room>,
    /// How many bytes the history of each room has at most.
    pub(super) history_bytes: u64,
    topologies: Vec<Topology>,
    began: Instant,
    elapsed_ms: u64,
    /// All events that were accepted, with their rooms.
    accepted: Vec<(usize, Event)>,
    /// The last publish to each room by each origin.
    last: BTreeMap<(usize, u64), (u64, PublishedMessage, Vec<Event>)>,
    numbers: u64,
    /// Where each event was accepted. It is accepted again if a server has lost it.
    positions: BTreeMap<Event, Vec<Position>>,
    /// Whether a room was left.
    has_left: bool,
}

impl World {
    /// Creates two servers, and rooms with these retentions (number of events, time in
    /// milliseconds). Nothing is connected.
    pub(super) fn new(is_cluster: bool, retentions: &[(u64, u64)]) -> Self {
        let mut servers = Servers::new(2, is_cluster);
        let metrics = RedisMetrics::new();
        let keys = servers.keys().clone();
        let subscriptions =
            Subscriptions::new(keys, Seal::default(), Duration::from_millis(UNSUBSCRIBE_DELAY_MS), metrics.clone());
        let room = |(number, retention): (usize, &(u64, u64))| Room {
            name: RoomName::new(&format!("room-{number}")).expect("a valid name"),
            retention: *retention,
            is_wanted: false,
            since: None,
            base: None,
            answer: None,
            refusals: 0,
            delivered: Vec::new(),
        };
        let rooms: Vec<_> = retentions.iter().enumerate().map(room).collect();
        for (number, room) in rooms.iter().enumerate() {
            servers.assign(&room.name, number % 2);
        }
        let topologies = vec![servers.topology()];
        let began = Instant::now();
        let (accepted, last) = (Vec::new(), BTreeMap::new());
        Self {
            servers,
            subscriptions,
            metrics,
            rooms,
            history_bytes: 1024 * 1024,
            topologies,
            began,
            elapsed_ms: 0,
            accepted,
            last,
            numbers: 0,
            positions: BTreeMap::new(),
            has_left: false,
        }
    }

    /// Creates the same, with everything subscribed and answered.
    pub(super) fn ready(is_cluster: bool, retentions: &[(u64, u64)]) -> Self {
        let mut world = Self::new(is_cluster, retentions);
        (0..retentions.len()).for_each(|room| world.subscribe(room));
        world.learn(0);
        world.connect_all();
        world.exchange_all();
        assert!(world.rooms.iter().all(|room| room.since.is_some()), "all rooms are subscribed");
        world
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.elapsed_ms)
    }

    // === the hub ===

    pub(super) fn subscribe(&mut self, room: usize) {
        let now = self.now();
        let state = &mut self.rooms[room];
        if std::mem::replace(&mut state.is_wanted, true) {
            return;
        }
        let (waiter, answer) = oneshot::channel();
        if self.subscriptions.subscribe(&state.name, waiter, now) {
            state.since = Some(self.accepted.len());
        } else {
            state.answer = Some((self.elapsed_ms + 3000, answer));
        }
        self.look();
    }

    pub(super) fn unsubscribe(&mut self, room: usize) {
        let now = self.now();
        let state = &mut self.rooms[room];
        if std::mem::replace(&mut state.is_wanted, false) {
            (state.since, state.answer) = (None, None);
            self.has_left = true;
            self.subscriptions.unsubscribe(&state.name, now);
        }
    }

    /// Lets the time pass for which a room is kept after its last member has left. Publishers
    /// continue to repeat their publishes meanwhile.
    pub(super) fn forget(&mut self) {
        self.last.values_mut().for_each(|(at, ..)| *at += UNSUBSCRIBE_DELAY_MS);
        self.pass(UNSUBSCRIBE_DELAY_MS);
        self.exchange_all();
    }

    // === other nodes ===

    /// Publishes this many new events together. Large events are not kept.
    pub(super) fn publish(&mut self, room: usize, origin: u64, count: u64, is_large: bool) {
        let mut encoder = Encoder::new(NodeId::from_u64(origin), &Seal::default());
        let name = Name::new("e").expect("a valid name");
        let events: Vec<_> = (self.numbers + 1..=self.numbers + count).map(|number| (origin, number)).collect();
        self.numbers += count;
        for (_, number) in &events {
            encoder.push(*number, &name, number.to_string().as_bytes(), self.began);
        }
        let (kept, kept_ms) = self.rooms[room].retention;
        let kept = if is_large { 0 } else { kept };
        let number = encoder.last_number;
        // Messages are not signed here, so the channel does not matter.
        let encoded = encoder.finish("", &Seal::default());
        let (max_bytes, position_ms, unread_ms) = (self.history_bytes, 7_200_000, 300_000);
        let publish = PublishedMessage {
            origin,
            number,
            count,
            kept,
            kept_ms,
            max_bytes,
            position_ms,
            unread_ms,
            events: encoded,
        };
        self.last.insert((room, origin), (self.elapsed_ms, publish, events));
        self.publish_last(room, origin);
    }

    /// Repeats the last publish of an origin, as if it had got no reply.
    pub(super) fn publish_again(&mut self, room: usize, origin: u64) {
        if self.last.get(&(room, origin)).is_some_and(|(at, ..)| at + RETRY_MS > self.elapsed_ms) {
            self.publish_last(room, origin);
        }
    }

    fn publish_last(&mut self, room: usize, origin: u64) {
        let (_, publish, events) = &self.last[&(room, origin)];
        let places = self.accepted.len()..self.accepted.len() + events.len();
        let Ok(published) = self.servers.publish(&self.rooms[room].name, publish, places) else { return };
        let is_new = published.sent.is_some();
        if is_new {
            self.accepted.extend(events.iter().map(|event| (room, *event)));
        }
        self.check_placement(room, &events.clone(), published.placement, is_new);
    }

    // === the way between ===

    fn session_of(&self, node: usize) -> Option<(SessionIndex, bool)> {
        let mut known = self.subscriptions.servers().into_iter();
        known.find(|known| self.servers.index_of(&known.server) == node).map(|known| (known.index, known.owns))
    }

    /// Opens a connection to a server, if one is due.
    pub(super) fn connect(&mut self, node: usize) {
        let Some((session, true)) = self.session_of(node) else { return };
        if self.servers.is_master(node) && !self.servers.is_connected(node) {
            self.servers.connect(node);
            self.subscriptions.on_connected(session, self.now());
        }
        self.look();
    }

    pub(super) fn connect_all(&mut self) {
        (0..self.servers.count()).for_each(|node| self.connect(node));
    }

    /// Ends the connection. What was under way is lost.
    pub(super) fn cut(&mut self, node: usize) {
        if self.servers.is_connected(node) {
            self.servers.disconnect(node);
            self.tell_of_ends(&[node]);
        }
    }

    fn tell_of_ends(&mut self, nodes: &[usize]) {
        for node in nodes {
            let (session, _) = self.session_of(*node).expect("it was connected");
            self.subscriptions.on_disconnected(session);
        }
        self.look();
    }

    /// Executes this many of the node's commands.
    pub(super) fn serve(&mut self, node: usize, count: usize) -> usize {
        self.look();
        self.servers.serve(node, count)
    }

    /// Delivers this many frames to the node. Returns how many there were.
    pub(super) fn deliver(&mut self, node: usize, count: usize) -> usize {
        for delivered in 0..count {
            let Some(frame) = self.servers.next_output(node) else { return delivered };
            let (session, _) = self.session_of(node).expect("it is connected");
            let now = self.now();
            self.subscriptions.on_heard(session, now);
            if let Some(incoming) = Incoming::of(frame) {
                self.subscriptions.on_incoming(session, incoming, now);
            }
            self.look();
        }
        count
    }

    /// Exchanges all messages until none is left.
    pub(super) fn exchange_all(&mut self) {
        for _ in 0..MAX_EXCHANGES {
            let nodes = 0..self.servers.count();
            let moved: usize = nodes.map(|node| self.serve(node, usize::MAX) + self.deliver(node, usize::MAX)).sum();
            if moved == 0 {
                return;
            }
        }
        panic!("the node sends requests without end");
    }

    /// Delivers the current topology to the node, or the one from this many changes ago.
    pub(super) fn learn(&mut self, age: usize) {
        let which = (self.topologies.len() - 1).saturating_sub(age);
        let now = self.now();
        self.subscriptions.set_topology(self.topologies[which].clone(), now);
        self.look();
    }

    // === faults and time ===

    /// Ends a server. The replica that is promoted has missed this many of its last scripts.
    pub(super) fn fail_over(&mut self, node: usize, lag: usize) {
        let is_single = !(self.servers.is_master(0) && self.servers.is_master(1));
        let (from, to) = match (is_single, self.servers.is_master(node)) {
            (true, true) => (node, 1 - node),
            (true, false) => (1 - node, node),
            (false, _) => (node, node),
        };
        self.fault(|servers| servers.fail_over(from, to, lag));
    }

    /// Restarts a server without data.
    pub(super) fn restart(&mut self, node: usize) {
        if self.servers.is_master(node) {
            self.fault(|servers| servers.fail_over(node, node, usize::MAX));
        }
    }

    pub(super) fn begin_migration(&mut self, room: usize) {
        let name = self.rooms[room].name.clone();
        let to = 1 - self.servers.owner(&name);
        self.fault(|servers| servers.begin_migration(&name, to));
    }

    pub(super) fn end_migration(&mut self, room: usize) {
        let name = self.rooms[room].name.clone();
        self.fault(|servers| servers.end_migration(&name));
    }

    fn fault(&mut self, fault: impl FnOnce(&mut Servers)) {
        self.look();
        let mut connected: Vec<_> = (0..self.servers.count()).collect();
        connected.retain(|node| self.servers.is_connected(*node));
        fault(&mut self.servers);
        self.topologies.push(self.servers.topology());
        connected.retain(|node| !self.servers.is_connected(*node));
        self.tell_of_ends(&connected);
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, millis: u64) {
        self.elapsed_ms += millis;
        self.servers.pass(millis);
        let lost = self.subscriptions.on_tick(self.now());
        for session in lost {
            self.cut(self.servers.index_of(self.subscriptions.server(session)));
        }
        self.look();
    }

    /// Writes the pending output, and takes the events for the hub.
    fn look(&mut self) {
        for known in self.subscriptions.servers() {
            let node = self.servers.index_of(&known.server);
            if self.servers.is_connected(node)
                && let Some(bytes) = self.subscriptions.take_output(known.index)
            {
                self.servers.take(node, &bytes);
            }
        }
        for publish in self.subscriptions.take_events() {
            let room = self.rooms.iter_mut().find(|room| room.name == publish.room).expect("a room of this world");
            let number = std::str::from_utf8(&publish.payload).expect("a number").parse().expect("a number");
            let event = (publish.origin.as_u64(), number);
            let accepted = self.positions.get(&event).is_some_and(|positions| positions.contains(&publish.position));
            assert!(accepted, "{}: {event:?} came at {:?}, which no publish returned", room.name, publish.position);
            room.delivered.push(event);
        }
        for room in &mut self.rooms {
            if let (None, Some(next)) = (room.base, self.subscriptions.reads_from(&room.name)) {
                room.base = Some(next - 1 - room.delivered.len() as u64);
            }
            let Some((deadline, answer)) = &mut room.answer else { continue };
            match answer.try_recv() {
                Ok(Ok(())) => (room.since, room.answer) = (Some(self.accepted.len()), None),
                Ok(Err(_)) => {
                    assert!(*deadline <= self.elapsed_ms, "{} was refused early", room.name);
                    room.refusals += 1;
                    room.answer = None;
                }
                Err(TryRecvError::Empty) => {
                    assert!(self.elapsed_ms < *deadline + TICK_MS * 10, "{} waits for too long", room.name);
                }
                Err(TryRecvError::Closed) => panic!("the subscription to {} will never be confirmed", room.name),
            }
        }
    }
}
