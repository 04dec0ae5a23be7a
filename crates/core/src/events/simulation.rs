//! The lifecycle events of a cluster in any order of crashes, delays and losses: recorders of several
//! nodes, the store in memory, and a backend.

mod returns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::access::room_patterns::RoomPatterns;
use crate::events::delivery::Delivery;
use crate::events::event::{EventKind, LifecycleEvent};
use crate::events::memory::Stored;
use crate::events::recorder::{EndedCall, Ending, MAX_UNSENT, MAX_UNSENT_WITH_CALLS, Recorder};
use crate::events::store::{EventRules, Report};
use crate::id::{ConnectionId, NodeId, RoomName, UserId};

const NODES: usize = 3;
const USERS: usize = 3;

/// Longer than every time in the rules.
const LONG: u64 = 60_000;

#[derive(Debug, Clone)]
enum Step {
    Connect {
        node: usize,
        user: usize,
    },
    Disconnect {
        connection: usize,
    },
    Join {
        connection: usize,
        room: usize,
    },
    Leave {
        connection: usize,
        room: usize,
    },
    Report {
        node: usize,
        fate: Fate,
    },
    /// A report that was delayed arrives, possibly after later ones.
    Arrive {
        report: usize,
    },
    Deliver {
        node: usize,
        accepted: bool,
        acknowledged: bool,
    },
    Advance {
        millis: u64,
    },
    Kill {
        node: usize,
    },
    /// The store fails over to a copy that was made earlier.
    FailOver,
    Copy,
    /// The store restarts empty.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Replied,
    ReplyLost,
    Delayed,
}

fn any_step() -> impl Strategy<Value = Step> {
    let (node, user, connection, room) = (0..NODES, 0..USERS, 0..16usize, 0..2usize);
    let fate = prop_oneof![4 => Just(Fate::Replied), 1 => Just(Fate::ReplyLost), 1 => Just(Fate::Delayed)];
    prop_oneof![
        6 => (node.clone(), user).prop_map(|(node, user)| Step::Connect { node, user }),
        3 => connection.clone().prop_map(|connection| Step::Disconnect { connection }),
        5 => (connection.clone(), room.clone()).prop_map(|(connection, room)| Step::Join { connection, room }),
        2 => (connection, room).prop_map(|(connection, room)| Step::Leave { connection, room }),
        12 => (node.clone(), fate).prop_map(|(node, fate)| Step::Report { node, fate }),
        2 => (0..8usize).prop_map(|report| Step::Arrive { report }),
        6 => (node.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(node, accepted, acknowledged)| Step::Deliver { node, accepted, acknowledged }),
        6 => (1..6_000u64).prop_map(|millis| Step::Advance { millis }),
        1 => node.prop_map(|node| Step::Kill { node }),
        1 => Just(Step::FailOver),
        1 => Just(Step::Copy),
        1 => Just(Step::Restart),
    ]
}

struct World {
    now: u64,
    started: Instant,
    nodes: Vec<Node>,
    created: u64,
    store: Stored,
    copy: Stored,
    delayed: Vec<Report>,
    connections: Vec<Client>,
    /// The order of the events as the backend has accepted them first.
    delivered: Vec<LifecycleEvent>,
    known: BTreeMap<String, LifecycleEvent>,
}

struct Node {
    id: NodeId,
    recorder: Recorder,
    delivery: Delivery,
    connections: u64,
}

#[derive(Debug, Clone)]
struct Client {
    id: ConnectionId,
    is_open: bool,
    rooms: BTreeSet<usize>,
    user: usize,
}

fn room(number: usize) -> RoomName {
    RoomName::new(&format!("room{number}")).unwrap()
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user{number}")).unwrap()
}

impl World {
    fn new() -> Self {
        let rules = EventRules::default();
        let mut world = Self {
            now: 1_000_000,
            started: Instant::now(),
            nodes: Vec::new(),
            created: 0,
            store: Stored::new(rules),
            copy: Stored::new(rules),
            delayed: Vec::new(),
            connections: Vec::new(),
            delivered: Vec::new(),
            known: BTreeMap::new(),
        };
        for _ in 0..NODES {
            let node = world.new_node();
            world.nodes.push(node);
        }
        world
    }

    fn new_node(&mut self) -> Node {
        self.created += 1;
        let id = NodeId::from_u64(self.created);
        let kinds = EventKind::ALL.into_iter().collect();
        let recorder = Recorder::new(id, kinds, "room1".parse().unwrap());
        Node { id, recorder, delivery: Delivery::new(id), connections: 0 }
    }

    fn instant(&self) -> Instant {
        self.started + Duration::from_millis(self.now)
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Connect { node, user: number } => {
                let node = &mut self.nodes[node];
                node.connections += 1;
                let id = ConnectionId { node: node.id, serial: node.connections };
                node.recorder.connected(id, Some(&user(number)), self.now);
                self.connections.push(Client { id, is_open: true, rooms: BTreeSet::new(), user: number });
            }
            Step::Disconnect { connection } => self.end(connection),
            Step::Join { connection, room: number } => {
                let now = self.now;
                if let Some((recorder, client)) = self.client(connection) {
                    client.rooms.insert(number);
                    recorder.joined(client.id, &room(number), now);
                }
            }
            Step::Leave { connection, room: number } => {
                let now = self.now;
                if let Some((recorder, client)) = self.client(connection) {
                    client.rooms.remove(&number);
                    recorder.left(client.id, &room(number), now);
                }
            }
            Step::Report { node, fate } => self.report(node, fate),
            Step::Arrive { report } => {
                if report < self.delayed.len() {
                    let report = self.delayed.remove(report);
                    self.store.report(report, self.now);
                }
            }
            Step::Deliver { node, accepted, acknowledged } => self.deliver(node, accepted, acknowledged),
            Step::Advance { millis } => self.now += millis,
            Step::Kill { node } => {
                let killed = self.nodes[node].id;
                self.connections.retain(|client| client.id.node != killed);
                self.nodes[node] = self.new_node();
            }
            Step::FailOver => self.store = self.copy.clone(),
            Step::Copy => self.copy = self.store.clone(),
            Step::Restart => {
                self.store = Stored::new(EventRules::default());
                self.copy = self.store.clone();
            }
        }
    }

    /// Returns an open connection and its node's recorder.
    fn client(&mut self, connection: usize) -> Option<(&mut Recorder, &mut Client)> {
        let client = self.connections.get_mut(connection).filter(|client| client.is_open)?;
        let node = self.nodes.iter_mut().find(|node| node.id == client.id.node)?;
        Some((&mut node.recorder, client))
    }

    fn end(&mut self, connection: usize) {
        let now = self.now;
        if let Some((recorder, client)) = self.client(connection) {
            client.is_open = false;
            client.rooms.clear();
            recorder.disconnected(client.id, &Ending::new("client", 1000), now);
        }
    }

    fn report(&mut self, node: usize, fate: Fate) {
        let report = self.nodes[node].recorder.next_report();
        if matches!(fate, Fate::Delayed) {
            return self.delayed.push(report);
        }
        let reported = self.store.report(report, self.now);
        if matches!(fate, Fate::ReplyLost) {
            return;
        }
        let ended = self.nodes[node].recorder.on_reported(&reported, self.now);
        for id in ended {
            let connection = self.connections.iter().position(|client| client.id == id);
            self.end(connection.expect("it is known"));
        }
    }

    fn deliver(&mut self, node: usize, accepted: bool, acknowledged: bool) {
        let now = self.instant();
        let delivery = &mut self.nodes[node].delivery;
        let Some(events) = self.store.take(&delivery.next_take(now), self.now) else {
            delivery.on_other_deliverer();
            return;
        };
        if events.is_empty() {
            delivery.on_nothing(now);
            return;
        }
        if accepted {
            if acknowledged {
                delivery.on_accepted(events.clone());
            } else {
                delivery.on_refused(now);
            }
            for event in events.into_iter().map(|waiting| waiting.event) {
                // The time of an end for a lost node may differ, because it is the time of its discovery.
                if self.known.insert(event.id.clone(), event.clone()).is_none() {
                    self.delivered.push(event);
                }
            }
        } else {
            delivery.on_refused(now);
        }
    }

    /// Lets everything be reported and delivered.
    fn settle(&mut self) {
        self.delayed.clear();
        for _ in 0..LONG / 500 {
            self.now += 500;
            (0..NODES).for_each(|node| self.report(node, Fate::Replied));
            (0..NODES).for_each(|node| self.deliver(node, true, true));
        }
    }

    fn ids(&self, kind: EventKind) -> BTreeSet<String> {
        let suffix = format!(".{kind}");
        self.delivered.iter().filter_map(|event| event.id.strip_suffix(&suffix)).map(ToOwned::to_owned).collect()
    }

    /// Returns the kinds of events of a user in a room, or of a room, in their order.
    fn kinds_of(&self, room: usize, user: Option<usize>, kinds: [EventKind; 2]) -> Vec<EventKind> {
        let kind_of = |event: &LifecycleEvent| {
            let cloud = event.to_cloud_event().unwrap();
            let kind = kinds.into_iter().find(|kind| cloud["type"] == kind.type_name())?;
            let is_user = user.is_none_or(|user| cloud["data"]["user"] == format!("user{user}"));
            (cloud["data"]["room"] == format!("room{room}") && is_user).then_some(kind)
        };
        self.delivered.iter().filter_map(kind_of).collect()
    }

    /// Checks what must hold after everything is delivered.
    fn check_connections(&self) {
        let (connected, disconnected) = (self.ids(EventKind::Connected), self.ids(EventKind::Disconnected));
        let ended: BTreeSet<_> = connected
            .iter()
            .filter(|id| !self.connections.iter().any(|client| client.is_open && client.id.to_string() == **id))
            .cloned()
            .collect();
        assert_eq!(disconnected, ended, "each connection that ended has its event");
        let place = |id: &str, kind| self.delivered.iter().position(|event| event.id == format!("{id}.{kind}"));
        for id in &ended {
            assert!(place(id, EventKind::Connected) < place(id, EventKind::Disconnected), "{id} is in order");
        }
    }

    fn check_rooms(&self) {
        for room in 0..2 {
            let is_in = |client: &&Client| client.is_open && client.rooms.contains(&room);
            for user in 0..USERS {
                let kinds = self.kinds_of(room, Some(user), [EventKind::Joined, EventKind::Left]);
                let present = self.connections.iter().filter(is_in).any(|client| client.user == user);
                check_alternation(&kinds, [EventKind::Joined, EventKind::Left], present);
            }
            let kinds = self.kinds_of(room, None, [EventKind::Occupied, EventKind::Vacated]);
            let present = room == 1 && self.connections.iter().any(|client| is_in(&client));
            check_alternation(&kinds, [EventKind::Occupied, EventKind::Vacated], present);
        }
    }
}

fn check_alternation(kinds: &[EventKind], [begin, end]: [EventKind; 2], present: bool) {
    let expected: Vec<_> = [begin, end].into_iter().cycle().take(kinds.len()).collect();
    assert_eq!(kinds, expected);
    assert_eq!(kinds.len() % 2 == 1, present, "the last event is what is true: {kinds:?}");
}

fn loses_data(step: &Step) -> bool {
    matches!(step, Step::FailOver | Step::Restart)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_nodes_do_each_beginning_has_one_end_and_events_alternate(
        steps in vec(any_step().prop_filter("the store keeps its data", |step| !loses_data(step)), 0..120)
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.perform(step));
        world.settle();
        world.check_connections();
        world.check_rooms();
        (0..world.connections.len()).for_each(|connection| world.end(connection));
        world.settle();
        world.check_connections();
        world.check_rooms();
    }

    #[test]
    fn whatever_the_store_loses_nodes_that_live_report_each_connection(
        steps in vec(any_step().prop_filter("no node is killed", |step| !matches!(step, Step::Kill { .. })), 0..120)
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.perform(step));
        world.settle();
        (0..world.connections.len()).for_each(|connection| world.end(connection));
        world.settle();
        world.check_connections();
        let all: BTreeSet<_> = world.connections.iter().map(|client| client.id.to_string()).collect();
        assert_eq!(world.ids(EventKind::Disconnected), all);
    }
}

#[test]
fn connections_have_space_when_calls_have_none() {
    let node = NodeId::from_u64(1);
    let mut recorder = Recorder::new(node, EventKind::ALL.into_iter().collect(), RoomPatterns::default());
    let connection = |serial| ConnectionId { node, serial };
    recorder.connected(connection(1), None, 0);
    let call = EndedCall::new(connection(1), 1, "work");
    (0..MAX_UNSENT_WITH_CALLS + 7).for_each(|_| recorder.call_ended(&call, 0));
    assert_eq!((recorder.unsent(), recorder.dropped()), (MAX_UNSENT_WITH_CALLS, 8));
    (2..=MAX_UNSENT as u64).for_each(|serial| recorder.connected(connection(serial), None, 0));
    assert_eq!(recorder.unsent(), MAX_UNSENT);
    // Each connection that was recorded ends, and no other.
    (1..=MAX_UNSENT as u64)
        .for_each(|serial| recorder.disconnected(connection(serial), &Ending::new("client", 1000), 0));
    assert_eq!(recorder.unsent(), MAX_UNSENT + MAX_UNSENT / 2 + 1);
}
