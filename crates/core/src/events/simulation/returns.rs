//! A user whose client returns to another node.

use super::{Fate, NODES, Step, World};
use crate::events::event::EventKind;

fn kinds(world: &World) -> Vec<EventKind> {
    world.kinds_of(0, Some(0), [EventKind::Joined, EventKind::Left])
}

#[test]
fn a_client_that_returns_to_another_node_in_time_neither_leaves_nor_joins() {
    let mut world = World::new();
    let report = |world: &mut World, millis| {
        world.now += millis;
        (0..NODES).for_each(|node| world.report(node, Fate::Replied));
        (0..NODES).for_each(|node| world.deliver(node, true, true));
    };
    report(&mut world, 0);
    world.perform(&Step::Connect { node: 0, user: 0 });
    world.perform(&Step::Join { connection: 0, room: 0 });
    report(&mut world, 0);
    assert_eq!(kinds(&world), [EventKind::Joined]);
    world.perform(&Step::Disconnect { connection: 0 });
    report(&mut world, 0);
    world.perform(&Step::Connect { node: 1, user: 0 });
    world.perform(&Step::Join { connection: 1, room: 0 });
    report(&mut world, 2_900);
    world.settle();
    assert_eq!(kinds(&world), [EventKind::Joined]);
    world.perform(&Step::Leave { connection: 1, room: 0 });
    report(&mut world, 0);
    report(&mut world, 2_900);
    assert_eq!(kinds(&world), [EventKind::Joined]);
    report(&mut world, 100);
    report(&mut world, 100);
    assert_eq!(kinds(&world), [EventKind::Joined, EventKind::Left]);
}

#[test]
fn a_client_of_a_killed_node_that_returns_in_time_does_not_leave() {
    let mut world = World::new();
    world.perform(&Step::Connect { node: 0, user: 0 });
    world.perform(&Step::Join { connection: 0, room: 0 });
    world.report(0, Fate::Replied);
    world.perform(&Step::Kill { node: 0 });
    world.perform(&Step::Connect { node: 1, user: 0 });
    world.perform(&Step::Join { connection: 0, room: 0 });
    world.settle();
    assert_eq!(kinds(&world), [EventKind::Joined]);
    assert_eq!(world.ids(EventKind::Disconnected).len(), 1);
    world.perform(&Step::Leave { connection: 0, room: 0 });
    world.settle();
    assert_eq!(kinds(&world), [EventKind::Joined, EventKind::Left]);
}

#[test]
fn a_client_that_has_returned_does_not_leave_while_its_node_cannot_report() {
    let mut world = World::new();
    let returns = |world: &mut World| {
        world.perform(&Step::Connect { node: 0, user: 0 });
        world.perform(&Step::Join { connection: 0, room: 0 });
        world.report(0, Fate::Replied);
        world.report(1, Fate::Replied);
        world.perform(&Step::Copy);
        world.perform(&Step::Connect { node: 1, user: 0 });
        world.perform(&Step::Join { connection: 1, room: 0 });
        world.perform(&Step::Disconnect { connection: 0 });
    };
    let report_alone = |world: &mut World| {
        for _ in 0..18 {
            world.now += 500;
            world.report(0, Fate::Replied);
        }
    };

    // The node cannot reach the store for 9 s.
    returns(&mut world);
    report_alone(&mut world);
    world.settle();
    assert_eq!(kinds(&world), [EventKind::Joined]);

    // The store loses what it has reported, with and without the node itself.
    for failure in [Step::FailOver, Step::Restart] {
        let mut world = World::new();
        returns(&mut world);
        world.report(1, Fate::Replied);
        world.perform(&failure);
        report_alone(&mut world);
        world.settle();
        assert_eq!(kinds(&world), [EventKind::Joined], "{failure:?}");
        world.perform(&Step::Leave { connection: 1, room: 0 });
        world.settle();
        assert_eq!(kinds(&world), [EventKind::Joined, EventKind::Left], "{failure:?}");
    }
}
