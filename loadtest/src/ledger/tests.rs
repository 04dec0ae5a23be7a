//! The ledger against deliveries whose faults are known.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::results::Faults;

/// One publisher here, one elsewhere.
fn room() -> Room {
    Room::new(2, std::iter::once(0))
}

fn receive_all(room: &mut Room, member: &mut Membership, sequences: &[u64]) {
    for sequence in sequences {
        room.receive(member, 0, *sequence);
    }
}

fn faults(lost: u64, duplicated: u64, reordered: u64) -> Faults {
    Faults { lost, duplicated, reordered, ..Faults::default() }
}

#[track_caller]
fn check(published: u64, received: &[u64], expected: Faults) {
    let mut room = room();
    let mut member = room.join(true);
    for _ in 0..published {
        room.publish(0);
    }
    receive_all(&mut room, &mut member, received);
    room.settle(member);
    assert_eq!(room.faults, expected);
}

#[test]
fn each_fault_is_told_from_the_others() {
    check(4, &[0, 1, 2, 3], faults(0, 0, 0));
    check(4, &[0, 2, 3], faults(1, 0, 0));
    check(4, &[1, 2, 3], faults(1, 0, 0));
    check(4, &[0, 1], faults(2, 0, 0));
    check(4, &[], faults(4, 0, 0));
    check(4, &[0, 1, 1, 2, 3], faults(0, 1, 0));
    check(4, &[0, 2, 1, 3], faults(0, 0, 1));
    check(4, &[0, 3, 1, 1], faults(1, 1, 1));
}

#[test]
fn a_refused_publish_is_not_lost_but_may_come() {
    for received in [&[0, 2][..], &[0, 1, 2]] {
        let mut room = room();
        let mut member = room.join(true);
        for _ in 0..3 {
            room.publish(0);
        }
        receive_all(&mut room, &mut member, received);
        room.unsure(0, 1);
        room.settle(member);
        assert_eq!(room.faults, faults(0, 0, 0));
    }
}

#[test]
fn who_joins_later_must_get_what_is_sent_after_the_join_and_may_get_what_was_under_way() {
    for (received, expected) in [
        (&[5, 6][..], faults(0, 0, 0)),
        (&[3, 4, 5, 6], faults(0, 0, 0)),
        (&[4, 6], faults(1, 0, 0)),
        (&[6], faults(1, 0, 0)),
        (&[4, 3, 5, 6], faults(0, 0, 1)),
        (&[], faults(2, 0, 0)),
    ] {
        let mut room = room();
        for _ in 0..5 {
            room.publish(0);
        }
        let mut member = room.join(false);
        room.publish(0);
        room.publish(0);
        receive_all(&mut room, &mut member, received);
        room.settle(member);
        assert_eq!(room.faults, expected, "{received:?}");
    }
}

#[test]
fn who_leaves_is_not_owed_what_was_under_way_but_what_came_before_it() {
    let mut room = room();
    let mut member = room.join(true);
    for _ in 0..5 {
        room.publish(0);
    }
    receive_all(&mut room, &mut member, &[0, 2]);
    room.leave(member);
    room.settle_left();
    assert_eq!(room.faults, faults(1, 0, 0));
}

#[test]
fn events_of_another_process_are_checked_when_it_has_told_what_it_published() {
    let told = Published { room: 7, publishers: BTreeMap::from([(1, (4, BTreeSet::from([3])))]) };
    for (at_start, received, expected) in
        [(true, &[0, 1, 2][..], 0), (true, &[0, 2], 1), (true, &[], 3), (false, &[], 0), (false, &[1], 1)]
    {
        let mut room = room();
        let mut member = room.join(at_start);
        for sequence in received {
            room.receive(&mut member, 1, *sequence);
        }
        room.learn(&told);
        room.settle(member);
        assert_eq!(room.faults, faults(expected, 0, 0), "{at_start} {received:?}");
    }
}

#[test]
fn two_members_that_see_two_publishers_in_different_orders_are_a_fault_whoever_is_first() {
    let orders = [[(0, 0), (1, 0), (0, 1)], [(1, 0), (0, 0), (0, 1)]];
    for turns in [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0]] {
        let mut room = Room::new(2, 0..2);
        let mut members = [room.join(true), room.join(true)];
        for (publisher, _) in orders[0] {
            room.publish(publisher);
        }
        let mut next = [0, 0];
        for member in turns {
            let (publisher, sequence) = orders[member][next[member]];
            next[member] += 1;
            room.receive(&mut members[member], publisher, sequence);
        }
        members.into_iter().for_each(|member| room.settle(member));
        assert_eq!(room.faults, faults(0, 0, 1), "{turns:?}");
    }
}

#[test]
fn what_a_member_misses_is_in_its_place_for_the_others() {
    let whole = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)];
    // However far the members are from each other, and whichever of them is the reference.
    for ahead in 0..=whole.len() {
        for loses in 0..2 {
            let mut room = Room::new(2, 0..2);
            let mut members = [room.join(true), room.join(true)];
            for (publisher, _) in whole {
                room.publish(publisher);
            }
            for step in 0..whole.len() + ahead {
                for (number, at) in [(0, Some(step)), (1, step.checked_sub(ahead))] {
                    let event = at.and_then(|at| whole.get(at)).filter(|event| number != loses || **event != (0, 1));
                    if let Some((publisher, sequence)) = event {
                        room.receive(&mut members[number], *publisher, *sequence);
                    }
                }
            }
            members.into_iter().for_each(|member| room.settle(member));
            assert_eq!(room.faults, faults(1, 0, 0), "ahead by {ahead}, {loses} loses");
        }
    }
}

#[test]
fn when_the_reference_leaves_another_member_takes_its_place() {
    let mut room = Room::new(2, 0..2);
    let (mut first, mut second, mut third) = (room.join(true), room.join(true), room.join(true));
    for publisher in [0, 1, 0, 1] {
        room.publish(publisher);
    }
    for (publisher, sequence) in [(0, 0), (1, 0)] {
        room.receive(&mut first, publisher, sequence);
    }
    room.leave(first);
    for (publisher, sequence) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        room.receive(&mut second, publisher, sequence);
    }
    for (publisher, sequence) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
        room.receive(&mut third, publisher, sequence);
    }
    assert_eq!(room.faults, faults(0, 0, 1));
}

#[test]
fn gaps_beyond_the_bound_are_counted_all_the_same() {
    let mut room = room();
    let mut member = room.join(true);
    let odd: Vec<u64> = (0..5_000).map(|number| number * 2 + 1).collect();
    for _ in 0..10_000 {
        room.publish(0);
    }
    receive_all(&mut room, &mut member, &odd);
    room.leave(member);
    room.settle_left();
    assert_eq!(room.faults, faults(5_000, 0, 0));
}

proptest! {
    #[test]
    fn every_event_is_received_or_missing(keep in vec(0..3_usize, 1..200)) {
        let mut room = room();
        let mut member = room.join(true);
        let (mut lost, mut duplicated) = (0, 0);
        for copies in &keep {
            let sequence = room.publish(0);
            for _ in 0..*copies {
                room.receive(&mut member, 0, sequence);
            }
            lost += u64::from(*copies == 0);
            duplicated += copies.saturating_sub(1) as u64;
        }
        prop_assert_eq!(room.missing(&member), lost);
        room.settle(member);
        prop_assert_eq!(room.faults, faults(lost, duplicated, 0));
    }
}
