//! Slots that move between the members of a cluster, and the number of requests that are sent at
//! once.

use super::world::{TICK_MS, UNSUBSCRIBE_DELAY_MS, World};

const ALL: (u64, u64) = (1000, 3_600_000);

fn move_away(world: &mut World, room: usize) {
    world.begin_migration(room);
    world.end_migration(room);
}

/// Lets time pass, while all messages are exchanged.
fn wait(world: &mut World, millis: u64) {
    world.pass(millis);
    world.exchange_all();
}

/// Delivers the topology if the node requests it, and then all messages.
fn go_on(world: &mut World) {
    while world.subscriptions.take_topology_wanted() {
        world.learn(0);
        world.connect_all();
        world.exchange_all();
    }
}

/// Returns where Redis has the room, and where the node expects it.
fn place(world: &World, room: usize) -> (Vec<usize>, Option<usize>) {
    let name = &world.rooms[room].name;
    let session = world.subscriptions.subscribed_to(name);
    let node = session.map(|session| world.servers.index_of(world.subscriptions.server(session)));
    (world.servers.subscribed_at(name), node)
}

#[test]
fn a_room_follows_its_slot() {
    let mut world = World::ready(true, &[ALL, ALL]);
    go_on(&mut world);
    world.publish(0, 1, 1, false);
    move_away(&mut world, 0);
    // The node does not have the new topology yet.
    world.publish(0, 1, 1, false);
    world.exchange_all();
    assert_eq!(place(&world, 0), (vec![], None));
    go_on(&mut world);
    world.publish(0, 1, 1, false);
    world.exchange_all();
    assert_eq!(place(&world, 0), (vec![1], Some(1)));
    assert_eq!(world.delivered(0), [1, 2, 3]);
    assert_eq!((world.metrics.lost.get(), world.metrics.history_resets.get()), (0, 0));
    assert_eq!(place(&world, 1), (vec![1], Some(1)), "the other one stays");
}

#[test]
fn a_refused_subscription_is_asked_for_where_the_slot_is() {
    let mut world = World::new(true, &[ALL, ALL]);
    world.learn(0);
    world.connect_all();
    move_away(&mut world, 0);
    world.subscribe(0);
    world.exchange_all();
    assert_eq!(place(&world, 0), (vec![], None));
    // The topology that the node receives is old, too.
    world.learn(usize::MAX);
    world.exchange_all();
    assert_eq!(place(&world, 0), (vec![], None));
    go_on(&mut world);
    assert_eq!(place(&world, 0), (vec![1], Some(1)));
    world.check_that_it_goes_on();
}

#[test]
fn a_room_whose_keys_are_on_their_way_is_subscribed_when_they_have_arrived() {
    let mut world = World::ready(true, &[ALL, ALL]);
    world.publish(0, 1, 1, false);
    world.cut(0);
    world.begin_migration(0);
    world.connect_all();
    world.exchange_all();
    // Redis confirmed the subscription and did not reply with the position.
    assert_eq!(place(&world, 0), (vec![0], None));
    world.end_migration(0);
    go_on(&mut world);
    assert_eq!((place(&world, 0), world.delivered(0)), ((vec![1], Some(1)), vec![1]));
}

#[test]
fn a_new_room_whose_keys_are_on_their_way_begins_where_they_are_then() {
    let mut world = World::new(true, &[ALL, ALL]);
    world.learn(0);
    world.connect_all();
    world.publish(0, 1, 2, false);
    world.begin_migration(0);
    world.subscribe(0);
    world.exchange_all();
    assert_eq!(place(&world, 0), (vec![0], None));
    world.end_migration(0);
    go_on(&mut world);
    world.publish(0, 1, 1, false);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.gaps.get()), (vec![3], 0));
}

#[test]
fn a_room_that_is_left_while_its_keys_are_on_their_way_is_not_subscribed_for_ever() {
    let mut world = World::ready(true, &[ALL, ALL]);
    world.begin_migration(0);
    world.cut(0);
    world.connect_all();
    world.exchange_all();
    world.unsubscribe(0);
    wait(&mut world, UNSUBSCRIBE_DELAY_MS);
    assert_eq!(place(&world, 0), (vec![], None));
}

#[test]
fn an_end_that_redis_refuses_does_not_disturb_the_next_question() {
    let mut world = World::ready(true, &[ALL, ALL, ALL]);
    world.unsubscribe(0);
    world.unsubscribe(2);
    wait(&mut world, UNSUBSCRIBE_DELAY_MS - 2);
    // Redis ends the first room's subscription before the node can, and the other one's at the
    // node's request.
    move_away(&mut world, 0);
    world.pass(1);
    world.pass(1);
    world.subscribe(2);
    world.exchange_all();
    assert_eq!((place(&world, 0), place(&world, 2)), ((vec![], None), (vec![0], Some(0))));
    assert_eq!(world.metrics.resubscriptions.get(), 0);
}

#[test]
fn a_room_whose_end_was_refused_follows_its_slot_later() {
    let mut world = World::ready(true, &[ALL, ALL]);
    world.unsubscribe(0);
    wait(&mut world, UNSUBSCRIBE_DELAY_MS - 1);
    world.cut(0);
    move_away(&mut world, 0);
    world.connect(0);
    world.pass(1);
    // Both the subscription and its end are rejected.
    world.exchange_all();
    move_away(&mut world, 0);
    world.learn(0);
    world.subscribe(0);
    world.exchange_all();
    go_on(&mut world);
    assert_eq!(place(&world, 0), (vec![0], Some(0)));
    move_away(&mut world, 0);
    world.exchange_all();
    go_on(&mut world);
    assert_eq!(place(&world, 0), (vec![1], Some(1)));
    world.check_that_it_goes_on();
}

// === how much ===

#[test]
fn a_server_is_asked_about_a_bounded_number_of_rooms_at_once() {
    const ROOMS: usize = 2000;
    let mut world = World::new(false, &[ALL; ROOMS]);
    (0..ROOMS).for_each(|room| world.subscribe(room));
    world.learn(0);
    world.connect(0);
    let (mut most, mut answered) = (0, 0);
    while world.subscriptions.in_flight() != [0] {
        most = most.max(world.subscriptions.in_flight()[0]);
        world.serve(0, 100);
        world.deliver(0, 100);
        answered += 1;
        assert!(answered < 1000, "it comes to an end");
    }
    assert_eq!(most, 512);
    assert!(world.rooms.iter().all(|room| world.subscriptions.subscribed_to(&room.name) == Some(0)));
    world.pass(TICK_MS);
}

#[test]
fn a_bounded_number_of_rooms_is_left_at_once() {
    const ROOMS: usize = 2000;
    let mut world = World::ready(false, &[ALL; ROOMS]);
    (0..ROOMS).for_each(|room| world.unsubscribe(room));
    world.pass(UNSUBSCRIBE_DELAY_MS);
    assert_eq!(world.subscriptions.in_flight(), [512]);
    // One of the rooms is subscribed to again. Redis still has its subscription, and the request to
    // end it waits.
    let (again, name) = (ROOMS - 1, world.rooms[ROOMS - 1].name.clone());
    assert_eq!(world.servers.subscribed_at(&name), [0]);
    world.subscribe(again);
    world.exchange_all();
    let left = world.rooms.iter().filter(|room| world.servers.subscribed_at(&room.name).is_empty());
    assert_eq!(left.count(), ROOMS - 1);
    assert_eq!((place(&world, again), world.metrics.resubscriptions.get()), ((vec![0], Some(0)), 0));
    world.check_that_it_goes_on();
}
