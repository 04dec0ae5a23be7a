//! Arbitrary operations in arbitrary order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::world::{UNSUBSCRIBE_DELAY_MS, World};

#[derive(Debug, Clone)]
enum Op {
    Publish { room: usize, origin: u64, count: u64, is_large: bool },
    PublishAgain { room: usize, origin: u64 },
    Serve { node: usize, count: usize },
    Deliver { node: usize, count: usize },
    ExchangeAll,
    Connect { node: usize },
    Cut { node: usize },
    FailOver { node: usize, lag: usize },
    Restart { node: usize },
    BeginMigration { room: usize },
    EndMigration { room: usize },
    Learn { age: usize },
    Pass { millis: u64 },
    Subscribe { room: usize },
    Unsubscribe { room: usize },
}

impl Op {
    fn apply(&self, world: &mut World) {
        let rooms = world.rooms.len();
        match *self {
            Self::Publish { room, origin, count, is_large } => world.publish(room % rooms, origin, count, is_large),
            Self::PublishAgain { room, origin } => world.publish_again(room % rooms, origin),
            Self::Serve { node, count } => drop(world.serve(node, count)),
            Self::Deliver { node, count } => drop(world.deliver(node, count)),
            Self::ExchangeAll => world.exchange_all(),
            Self::Connect { node } => world.connect(node),
            Self::Cut { node } => world.cut(node),
            Self::FailOver { node, lag } => world.fail_over(node, lag),
            Self::Restart { node } => world.restart(node),
            Self::BeginMigration { room } => world.begin_migration(room % rooms),
            Self::EndMigration { room } => world.end_migration(room % rooms),
            Self::Learn { age } => world.learn(age),
            Self::Pass { millis } => world.pass(millis),
            Self::Subscribe { room } => world.subscribe(room % rooms),
            Self::Unsubscribe { room } => world.unsubscribe(room % rooms),
        }
    }
}

/// Operations of servers that lose nothing, while all rooms stay subscribed.
fn any_harmless_op() -> impl Strategy<Value = Op> {
    let (node, room, origin) = (0..2_usize, 0..4_usize, 1..4_u64);
    prop_oneof![
        8 => (room.clone(), origin.clone(), 1..4_u64, prop::bool::weighted(0.1))
            .prop_map(|(room, origin, count, is_large)| Op::Publish { room, origin, count, is_large }),
        2 => (room.clone(), origin).prop_map(|(room, origin)| Op::PublishAgain { room, origin }),
        4 => (node.clone(), 1..6_usize).prop_map(|(node, count)| Op::Serve { node, count }),
        4 => (node.clone(), 1..6_usize).prop_map(|(node, count)| Op::Deliver { node, count }),
        3 => Just(Op::ExchangeAll),
        4 => node.clone().prop_map(|node| Op::Connect { node }),
        2 => node.prop_map(|node| Op::Cut { node }),
        2 => room.clone().prop_map(|room| Op::BeginMigration { room }),
        2 => room.prop_map(|room| Op::EndMigration { room }),
        3 => (0..3_usize).prop_map(|age| Op::Learn { age }),
        3 => (1..2500_u64).prop_map(|millis| Op::Pass { millis }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let (node, room) = (0..2_usize, 0..4_usize);
    prop_oneof![
        12 => any_harmless_op(),
        1 => (node.clone(), 0..4_usize).prop_map(|(node, lag)| Op::FailOver { node, lag }),
        1 => node.prop_map(|node| Op::Restart { node }),
        1 => room.clone().prop_map(|room| Op::Subscribe { room }),
        1 => room.prop_map(|room| Op::Unsubscribe { room }),
    ]
}

/// Operations of servers that lose nothing, while members join and leave.
fn any_op_of_members() -> impl Strategy<Value = Op> {
    let room = 0..4_usize;
    prop_oneof![
        12 => any_harmless_op(),
        2 => room.clone().prop_map(|room| Op::Subscribe { room }),
        2 => room.prop_map(|room| Op::Unsubscribe { room }),
        // Longer than a room is still read after its last member has left.
        1 => Just(Op::Pass { millis: UNSUBSCRIBE_DELAY_MS }),
    ]
}

/// The number of rooms, and how many messages each keeps, and for how long.
fn any_retentions() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let events = prop_oneof![3 => Just(1000_u64), 1 => Just(4), 1 => Just(1), 1 => Just(0)];
    vec((events, prop_oneof![3 => Just(3_600_000_u64), 1 => Just(2000)]), 1..4)
}

/// The rooms, and how many bytes the history of each has at most: enough for all events, or for two
/// or three.
fn any_rooms() -> impl Strategy<Value = (Vec<(u64, u64)>, u64)> {
    (any_retentions(), prop_oneof![3 => Just(1024 * 1024_u64), 1 => Just(200)])
}

fn run(is_cluster: bool, is_ready: bool, (retentions, history_bytes): &(Vec<(u64, u64)>, u64), ops: &[Op]) {
    let mut world = if is_ready { World::ready(is_cluster, retentions) } else { World::new(is_cluster, retentions) };
    world.history_bytes = *history_bytes;
    (0..retentions.len()).for_each(|room| world.subscribe(room));
    for op in ops {
        op.apply(&mut world);
    }
    world.heal();
    world.check();
    world.check_that_it_goes_on();
    world.check();
}

proptest! {
    #[test]
    fn what_redis_keeps_is_delivered_in_order_and_once_and_what_it_drops_is_counted(
        is_cluster: bool, is_ready: bool, rooms in any_rooms(), ops in vec(any_harmless_op(), 0..120),
    ) {
        run(is_cluster, is_ready, &rooms, &ops);
    }

    #[test]
    fn members_who_come_and_go_see_the_one_order_and_nothing_twice(
        is_cluster: bool, is_ready: bool, rooms in any_rooms(), ops in vec(any_op_of_members(), 0..120),
    ) {
        run(is_cluster, is_ready, &rooms, &ops);
    }

    #[test]
    fn no_room_is_stuck_and_no_loss_is_silent_though_redis_loses_what_it_had(
        is_cluster: bool, is_ready: bool, rooms in any_rooms(), ops in vec(any_op(), 0..120),
    ) {
        run(is_cluster, is_ready, &rooms, &ops);
    }
}
