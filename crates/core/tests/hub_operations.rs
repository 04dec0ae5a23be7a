//! Two nodes under any operations, against a list of who must receive what.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use common::{Client, Spy, clock, event, room, user};
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use roomcast_core::{Codec, Hub, HubOptions, MemoryBus, RoomName, UserId};

const ROOMS: usize = 3;
const USERS: usize = 2;

/// One thing that happens. An [`Index`] picks among the connections there are.
#[derive(Debug, Clone)]
enum Op {
    Connect {
        hub: usize,
        user: Option<usize>,
    },
    Disconnect(Index),
    Join(Index, usize),
    Leave(Index, usize),
    Publish {
        hub: usize,
        room: usize,
        padding: usize,
    },
    NotifyUser {
        hub: usize,
        user: usize,
    },
    /// The hubs deliver what the broker holds for them.
    Run,
}

fn any_op() -> impl Strategy<Value = Op> {
    // A hub's batches end at 64 KiB, so three large events are in two.
    let padding = prop_oneof![4 => Just(0_usize), 1 => Just(30_000)];
    prop_oneof![
        4 => (0..2_usize, proptest::option::of(0..USERS)).prop_map(|(hub, user)| Op::Connect { hub, user }),
        1 => any::<Index>().prop_map(Op::Disconnect),
        8 => (any::<Index>(), 0..ROOMS).prop_map(|(who, room)| Op::Join(who, room)),
        4 => (any::<Index>(), 0..ROOMS).prop_map(|(who, room)| Op::Leave(who, room)),
        8 => (0..2_usize, 0..ROOMS, padding).prop_map(|(hub, room, padding)| Op::Publish { hub, room, padding }),
        2 => (0..2_usize, 0..USERS).prop_map(|(hub, user)| Op::NotifyUser { hub, user }),
        3 => Just(Op::Run),
    ]
}

/// Where an event goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Room(usize),
    User(usize),
}

/// An event: where it goes to, and a number of its own.
type Sent = (Target, u64);

/// A connection, where it is a member, and what it must get.
struct Entry {
    client: Client,
    hub: usize,
    memberships: BTreeSet<Target>,
    expected: BTreeMap<Target, Vec<u64>>,
}

struct World<'a> {
    hubs: &'a [Arc<Hub>; 2],
    runs: [Pin<Box<dyn Future<Output = ()> + 'a>>; 2],
    entries: Vec<Entry>,
    /// Accepted for each hub and not yet delivered.
    under_way: [Vec<Sent>; 2],
    published: [u64; 2],
    delivered: [u64; 2],
}

impl<'a> World<'a> {
    fn new(hubs: &'a [Arc<Hub>; 2]) -> Self {
        let runs = hubs.each_ref().map(|hub| Box::pin(hub.run()) as Pin<Box<dyn Future<Output = ()>>>);
        let under_way = Default::default();
        Self { hubs, runs, entries: Vec::new(), under_way, published: [0; 2], delivered: [0; 2] }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Connect { hub, user } => self.connect(hub, user),
            Op::Publish { hub, room, padding } => self.publish(hub, Target::Room(room), padding),
            Op::NotifyUser { hub, user } => self.publish(hub, Target::User(user), 0),
            Op::Run => self.run(),
            Op::Disconnect(_) | Op::Join(..) | Op::Leave(..) if self.entries.is_empty() => {}
            Op::Disconnect(who) => drop(self.entries.swap_remove(who.index(self.entries.len()))),
            Op::Join(who, number) => {
                let (hub, entry) = self.entry(who);
                now(hub.local().join(entry.client.peer(), &name(number))).expect("there is place");
                entry.memberships.insert(Target::Room(number));
            }
            Op::Leave(who, number) => {
                let (hub, entry) = self.entry(who);
                hub.local().leave(entry.client.peer(), &name(number));
                entry.memberships.remove(&Target::Room(number));
            }
        }
        self.assert_counts();
    }

    fn entry(&mut self, who: Index) -> (&'a Hub, &mut Entry) {
        let index = who.index(self.entries.len());
        let entry = &mut self.entries[index];
        (&self.hubs[entry.hub], entry)
    }

    fn connect(&mut self, hub: usize, user: Option<usize>) {
        let connection = self.hubs[hub].local().connect(user.map(user_id), Codec::default());
        now(self.hubs[hub].local().join_user(connection.shared())).expect("there is place");
        let client = Client::of(connection);
        let memberships = user.map(Target::User).into_iter().collect();
        self.entries.push(Entry { client, hub, memberships, expected: BTreeMap::new() });
    }

    fn publish(&mut self, hub: usize, to: Target, padding: usize) {
        let number: u64 = self.published.iter().sum();
        let payload = format!("{to:?} {number} {}", "-".repeat(padding)).into();
        let accepted = match to {
            Target::Room(to) => now(self.hubs[hub].publish(name(to), event("event"), payload)).map(drop),
            Target::User(to) => now(self.hubs[hub].publish_to_user(&user_id(to), event("event"), payload)),
        };
        accepted.expect("the broker has place");
        self.published[hub] += 1;
        for (hub, under_way) in self.under_way.iter_mut().enumerate() {
            let of_hub = |entry: &Entry| entry.hub == hub && entry.memberships.contains(&to);
            if self.entries.iter().any(of_hub) {
                under_way.push((to, number));
            }
        }
    }

    /// A memory broker and a hub without lagging clients never wait for anything but events, so one
    /// look at each hub delivers all.
    fn run(&mut self) {
        for (hub, run) in self.runs.iter_mut().enumerate() {
            assert_eq!(run.as_mut().now_or_never(), None, "nobody closed hub {hub}");
            for (to, number) in self.under_way[hub].drain(..) {
                for entry in &mut self.entries {
                    if entry.hub == hub && entry.memberships.contains(&to) {
                        entry.expected.entry(to).or_default().push(number);
                        self.delivered[hub] += 1;
                    }
                }
            }
        }
        for (index, entry) in self.entries.iter_mut().enumerate() {
            // In a room's order; nothing is promised between rooms.
            let mut received: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for payload in entry.client.queued() {
                let (to, number) = payload.trim_end_matches('-').trim_end().rsplit_once(' ').expect("two words");
                received.entry(to.to_owned()).or_default().push(number.parse().expect("a number"));
            }
            let expected = std::mem::take(&mut entry.expected).into_iter().map(|(to, sent)| (format!("{to:?}"), sent));
            assert_eq!(received, expected.collect(), "what connection {index} received, by room");
        }
    }

    fn assert_counts(&self) {
        for (index, hub) in self.hubs.iter().enumerate() {
            let entries = || self.entries.iter().filter(|entry| entry.hub == index);
            let memberships = || entries().flat_map(|entry| &entry.memberships);
            let metrics = hub.metrics();
            assert_eq!(metrics.memberships.get() as usize, memberships().count(), "memberships of hub {index}");
            let rooms = memberships().collect::<BTreeSet<_>>().len();
            assert_eq!(metrics.rooms.get() as usize, rooms, "rooms of hub {index}");
            assert_eq!(hub.local().connection_count(), entries().count(), "connections of hub {index}");
            let published = metrics.publishes.with_label_values(&["ok"]).get();
            assert_eq!(published, self.published[index], "publishes of hub {index}");
            assert_eq!(metrics.deliveries.get(), self.delivered[index], "deliveries of hub {index}");
        }
    }
}

proptest! {
    #[test]
    fn everybody_gets_what_is_sent_to_their_rooms_and_nothing_else(ops in vec(any_op(), 0..120)) {
        let clock = clock();
        let _entered = clock.enter();
        let bus = MemoryBus::new();
        let spies = [Spy::new(bus.attach()), Spy::new(bus.attach())];
        let hubs = spies.each_ref().map(|spy| Hub::new(Arc::clone(spy) as _, HubOptions::default()));
        let mut world = World::new(&hubs);
        for op in &ops {
            world.apply(op);
        }
        world.apply(&Op::Run);
        world.entries.clear();
        world.assert_counts();
        for (spy, hub) in spies.iter().zip(&hubs) {
            prop_assert_eq!(spy.subscribed(), Vec::<String>::new(), "nobody is left who wants events");
            prop_assert_eq!(hub.metrics().outbound_memory.get(), 0);
        }
    }
}

/// The result of what a memory broker answers at once.
#[track_caller]
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory broker answers at once")
}

fn name(number: usize) -> RoomName {
    room(&format!("room-{number}"))
}

fn user_id(number: usize) -> UserId {
    user(&format!("user-{number}"))
}
