//! Connections that end, and servers that return with less data than they had.

use super::world::{TICK_MS, UNSUBSCRIBE_DELAY_MS, World};

/// The retention that keeps all events, for longer than any test lasts.
const ALL: (u64, u64) = (1000, 3_600_000);
const FOUR: (u64, u64) = (4, 3_600_000);
const NONE: (u64, u64) = (0, 0);

/// Creates a single server with one room, which is subscribed.
fn single(retention: (u64, u64)) -> World {
    World::ready(false, &[retention])
}

fn publish(world: &mut World, count: u64) {
    world.publish(0, 1, count, false);
}

#[test]
fn what_was_missed_comes_before_what_is_newer() {
    let mut world = single(ALL);
    publish(&mut world, 2);
    world.cut(0);
    publish(&mut world, 3);
    world.connect(0);
    // Redis subscribes the node but does not reply yet. The next event is sent before the missed
    // ones.
    world.serve(0, 1);
    publish(&mut world, 1);
    world.deliver(0, usize::MAX);
    assert!(world.delivered(0).is_empty(), "the first two went under with the connection");
    world.exchange_all();
    assert_eq!(world.delivered(0), [1, 2, 3, 4, 5, 6]);
    assert_eq!((world.metrics.repaired.get(), world.metrics.lost.get()), (6, 0));
}

#[test]
fn a_server_that_lost_its_last_writes_is_read_from_where_its_new_epoch_begins() {
    let mut world = single(ALL);
    (0..3).for_each(|_| publish(&mut world, 1));
    world.exchange_all();
    world.fail_over(0, 2);
    world.learn(0);
    // The new master has only event 1, so these are its events 2 and 3.
    (0..2).for_each(|_| publish(&mut world, 1));
    world.connect_all();
    world.exchange_all();
    assert_eq!(world.delivered(0), [1, 2, 3, 4, 5]);
    assert_eq!((world.metrics.history_resets.get(), world.metrics.lost.get()), (1, 0));
}

#[test]
fn a_server_that_lost_everything_is_read_from_its_first_event() {
    let mut world = single(ALL);
    publish(&mut world, 3);
    world.exchange_all();
    world.restart(0);
    publish(&mut world, 1);
    world.connect_all();
    world.exchange_all();
    publish(&mut world, 1);
    world.exchange_all();
    assert_eq!(world.delivered(0), [1, 2, 3, 4, 5]);
    assert_eq!((world.metrics.history_resets.get(), world.metrics.lost.get()), (1, 0));
}

#[test]
fn what_the_history_no_longer_has_is_counted() {
    for (retention, delivered, lost) in [(FOUR, vec![1, 2, 6, 7, 8, 9, 10], 3), (NONE, vec![1, 2, 10], 7)] {
        let mut world = single(retention);
        publish(&mut world, 2);
        world.exchange_all();
        world.cut(0);
        (0..7).for_each(|_| publish(&mut world, 1));
        world.connect(0);
        world.exchange_all();
        publish(&mut world, 1);
        world.exchange_all();
        assert_eq!((world.delivered(0), world.metrics.lost.get()), (delivered, lost));
    }
}

#[test]
fn a_message_too_large_to_be_kept_is_counted_and_its_neighbours_come() {
    let mut world = single(ALL);
    world.cut(0);
    publish(&mut world, 1);
    world.publish(0, 1, 2, true);
    publish(&mut world, 1);
    world.connect(0);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.lost.get()), (vec![1, 4], 2));
}

#[test]
fn a_publish_that_is_tried_again_is_delivered_once() {
    let mut world = single(ALL);
    publish(&mut world, 2);
    world.exchange_all();
    world.publish_again(0, 1);
    world.exchange_all();
    world.cut(0);
    world.publish_again(0, 1);
    publish(&mut world, 1);
    world.connect(0);
    world.exchange_all();
    assert_eq!(world.delivered(0), [1, 2, 3]);
    assert_eq!(world.metrics.duplicates.get(), 0, "Redis refuses it");
}

#[test]
fn a_node_that_subscribes_between_two_tries_sees_the_order_of_the_others() {
    let mut world = World::new(false, &[ALL]);
    world.learn(0);
    world.connect_all();
    world.publish(0, 1, 1, false);
    world.publish(0, 2, 1, false);
    world.subscribe(0);
    world.exchange_all();
    // The other nodes saw events 1, 2 and 3.
    world.publish_again(0, 1);
    world.publish(0, 2, 1, false);
    world.exchange_all();
    assert_eq!(world.delivered(0), [3]);
    world.check();
}

#[test]
fn a_member_that_rejoins_between_two_tries_sees_nothing_twice() {
    let mut world = single(ALL);
    publish(&mut world, 1);
    world.exchange_all();
    world.unsubscribe(0);
    world.forget();
    world.subscribe(0);
    world.exchange_all();
    world.publish_again(0, 1);
    world.exchange_all();
    assert_eq!(world.delivered(0), [1]);
}

#[test]
fn a_newcomer_does_not_get_what_redis_lost_and_is_told_again() {
    let mut world = World::new(false, &[ALL]);
    world.learn(0);
    world.connect_all();
    publish(&mut world, 2);
    publish(&mut world, 1);
    world.subscribe(0);
    world.exchange_all();
    world.fail_over(0, 1);
    world.learn(0);
    world.publish_again(0, 1);
    world.connect_all();
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.duplicates.get()), (vec![], 1));
}

#[test]
fn what_redis_had_lost_and_is_told_again_is_not_delivered_again() {
    let mut world = single(ALL);
    (0..2).for_each(|_| publish(&mut world, 1));
    world.exchange_all();
    world.fail_over(0, 1);
    world.learn(0);
    world.publish_again(0, 1);
    world.connect_all();
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.duplicates.get()), (vec![1, 2], 1));
}

#[test]
fn an_event_of_an_epoch_that_was_lost_meanwhile_is_not_asked_for_again_and_again() {
    let faults: [fn(&mut World); 2] = [|world| world.restart(0), |world| world.fail_over(0, 2)];
    for fault in faults {
        let mut world = World::ready(true, &[ALL]);
        publish(&mut world, 1);
        world.exchange_all();
        world.cut(0);
        publish(&mut world, 1);
        world.connect(0);
        world.serve(0, 1);
        publish(&mut world, 1);
        // Event 3 waits for the reply about event 2, which does not arrive. Then Redis has lost
        // both.
        world.deliver(0, usize::MAX);
        fault(&mut world);
        world.connect(0);
        world.exchange_all();
        world.heal();
        world.check();
        world.check_that_it_goes_on();
    }
}

#[test]
fn a_room_that_fell_back_and_moved_on_twice_is_read_from_where_it_first_fell_back() {
    let mut world = World::ready(true, &[ALL]);
    (0..3).for_each(|_| publish(&mut world, 1));
    world.exchange_all();
    world.fail_over(0, 2);
    // These are events 2 and 3 of the second epoch, and event 4 of the third.
    (0..2).for_each(|_| publish(&mut world, 1));
    world.fail_over(0, 0);
    publish(&mut world, 1);
    world.connect(0);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.lost.get()), (vec![1, 2, 3, 4, 5, 6], 0));
}

#[test]
fn a_room_that_fell_back_twice_is_read_from_where_it_first_fell_back() {
    let mut world = World::ready(true, &[ALL]);
    (0..3).for_each(|_| publish(&mut world, 1));
    world.exchange_all();
    world.fail_over(0, 2);
    (0..2).for_each(|_| publish(&mut world, 1));
    // Of events 4 and 5, which were events 2 and 3 of the second epoch, only event 4 is left.
    world.fail_over(0, 1);
    world.connect(0);
    // The first event of the third epoch arrives before the reply about the second epoch.
    world.serve(0, 1);
    publish(&mut world, 1);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.lost.get()), (vec![1, 2, 3, 4, 6], 0));
}

// === time ===

#[test]
fn who_waits_is_told_after_three_seconds_and_the_room_is_subscribed_when_it_can_be() {
    let mut world = World::new(false, &[ALL]);
    world.learn(0);
    world.subscribe(0);
    (0..11).for_each(|_| world.pass(TICK_MS));
    assert_eq!(world.rooms[0].refusals, 0);
    world.pass(TICK_MS);
    assert_eq!(world.rooms[0].refusals, 1);
    world.connect(0);
    world.exchange_all();
    world.check_that_it_goes_on();
}

#[test]
fn a_server_that_owes_an_answer_for_three_seconds_is_lost() {
    let mut world = single(ALL);
    world.pass(TICK_MS);
    // The PING was sent only now, and gets no reply.
    (0..12).for_each(|_| world.pass(TICK_MS));
    assert!(world.servers.is_connected(0));
    world.pass(TICK_MS);
    assert!(!world.servers.is_connected(0));
}

#[test]
fn a_server_that_answers_is_not_lost_however_little_it_says() {
    let mut world = single(ALL);
    for _ in 0..100 {
        world.pass(TICK_MS * 8);
        world.exchange_all();
    }
    assert!(world.servers.is_connected(0));
    assert_eq!(world.metrics.resubscriptions.get(), 0);
}

#[test]
fn a_room_is_read_on_for_a_while_after_it_was_left() {
    let mut world = single(ALL);
    world.unsubscribe(0);
    publish(&mut world, 1);
    world.exchange_all();
    world.pass(UNSUBSCRIBE_DELAY_MS - 1);
    world.exchange_all();
    assert_eq!(world.servers.subscribed_at(&world.rooms[0].name), [0]);
    // A member that returns in time is subscribed at once, and receives what is published from then
    // on.
    world.subscribe(0);
    publish(&mut world, 1);
    world.pass(UNSUBSCRIBE_DELAY_MS);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.servers.subscribed_at(&world.rooms[0].name)), (vec![2], vec![0]));

    world.unsubscribe(0);
    world.pass(UNSUBSCRIBE_DELAY_MS);
    world.exchange_all();
    assert!(world.servers.subscribed_at(&world.rooms[0].name).is_empty());
    publish(&mut world, 1);
    world.subscribe(0);
    world.exchange_all();
    publish(&mut world, 1);
    world.exchange_all();
    assert_eq!(world.delivered(0), [2, 4], "it begins anew");
    world.check();
}

#[test]
fn a_room_that_is_left_twice_is_read_on_for_a_while_after_the_second_time() {
    let mut world = single(ALL);
    world.unsubscribe(0);
    world.pass(UNSUBSCRIBE_DELAY_MS - 1);
    world.subscribe(0);
    world.unsubscribe(0);
    world.pass(1);
    world.exchange_all();
    assert_eq!(world.servers.subscribed_at(&world.rooms[0].name), [0]);
    world.pass(UNSUBSCRIBE_DELAY_MS - 1);
    world.exchange_all();
    assert!(world.servers.subscribed_at(&world.rooms[0].name).is_empty());
}

#[test]
fn what_comes_while_a_gap_is_repaired_is_read_though_no_history_has_it() {
    let mut world = single(NONE);
    publish(&mut world, 1);
    world.exchange_all();
    world.cut(0);
    publish(&mut world, 1);
    world.connect(0);
    // Redis has subscribed the node but has not replied yet.
    world.serve(0, 1);
    publish(&mut world, 1);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.lost.get()), (vec![1, 3], 1));
}

#[test]
fn an_event_of_an_earlier_subscription_does_not_set_the_position_of_a_new_one() {
    let mut world = single(NONE);
    world.unsubscribe(0);
    publish(&mut world, 1);
    world.pass(UNSUBSCRIBE_DELAY_MS);
    // Redis ends the subscription. What it sent before is still under way when the room is
    // subscribed to again.
    world.serve(0, 1);
    world.subscribe(0);
    publish(&mut world, 1);
    world.exchange_all();
    publish(&mut world, 1);
    world.exchange_all();
    assert_eq!((world.delivered(0), world.metrics.lost.get()), (vec![1, 3], 0));
}
