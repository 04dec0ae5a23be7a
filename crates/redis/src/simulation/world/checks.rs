//! What must hold in a world, whatever has happened.

use std::collections::BTreeSet;

use super::{Event, Room, Servers, TICK_MS, World};
use crate::state::placement::Placement;

impl World {
    /// Ends the faults, and lets more time pass than the node waits for anything.
    pub(in crate::simulation) fn heal(&mut self) {
        (0..self.rooms.len()).for_each(|room| self.end_migration(room));
        for tick in 0..60 {
            if self.subscriptions.take_topology_wanted() || tick == 40 {
                self.learn(0);
            }
            self.connect_all();
            self.exchange_all();
            self.pass(TICK_MS);
        }
        self.exchange_all();
    }

    /// Checks the positions that a publish returned. A repeated publish returns those of the first
    /// one that Redis still has. If the history does not contain its message, it returns a position
    /// at or after them.
    pub(super) fn check_placement(&mut self, room: usize, events: &[Event], placement: Placement, is_new: bool) {
        let room = &self.rooms[room].name;
        let may_be_later = !is_new && self.servers.room(room).trimmed;
        for (index, event) in events.iter().enumerate() {
            let (returned, accepted) = (placement.position(index as u64), self.positions.entry(*event).or_default());
            if is_new {
                accepted.push(returned);
            }
            let first = accepted.last().expect("Redis recognises only what it has accepted");
            let is_later = (returned.epoch, returned.offset) > (first.epoch, first.offset);
            let is_right = returned == *first || (is_later && may_be_later && placement.count == 1);
            assert!(is_right, "{room}: {event:?} was accepted at {first:?}, but its publish returned {returned:?}");
        }
    }

    /// Returns the numbers of the events that were delivered.
    pub(in crate::simulation) fn delivered(&self, room: usize) -> Vec<u64> {
        self.rooms[room].delivered.iter().map(|(_, number)| *number).collect()
    }

    /// Checks what must hold after all faults have ended.
    pub(in crate::simulation) fn check(&mut self) {
        let mut missing = 0;
        for (index, room) in self.rooms.iter().enumerate() {
            let Room { name, delivered, .. } = room;
            let distinct: BTreeSet<_> = delivered.iter().collect();
            assert_eq!(distinct.len(), delivered.len(), "{name}: an event came twice: {delivered:?}");
            let of_room = self.accepted.iter().filter(|(of, _)| *of == index).map(|(_, event)| event);
            // While nothing is lost, all members see one order, whenever they joined: the order of
            // the first acceptance.
            let mut seen = BTreeSet::new();
            let has_one_order = self.servers.rollbacks == 0;
            let mut timeline = of_room.filter(|event| seen.insert(**event) || !has_one_order);
            for event in delivered {
                let comes = timeline.any(|accepted| accepted == event);
                assert!(comes, "{name}: {event:?} is not in the order in which it was accepted: {delivered:?}");
            }
            let expected = if room.is_wanted { vec![self.servers.owner(name)] } else { vec![] };
            assert_eq!(self.servers.subscribed_at(name), expected, "{name}: where it is subscribed");
            assert!(room.answer.is_none(), "{name}: somebody still waits");
            let Some(since) = room.since.filter(|_| room.is_wanted) else { continue };
            let timeline = self.servers.room(name).timeline;
            // A repeated publish counts as accepted when it was first accepted.
            let before: BTreeSet<_> = self.accepted[..since].iter().map(|(_, event)| event).collect();
            let is_missing = |place: &&usize| {
                let event = &self.accepted[**place].1;
                !before.contains(event) && !distinct.contains(event)
            };
            missing += timeline.iter().filter(is_missing).count() as u64;
        }
        let lost = self.metrics.lost.get();
        assert_eq!(self.metrics.decode_errors.get(), 0, "decode errors");
        // If an epoch began with a rollback and has ended, it leaves no trace after the history has
        // dropped it.
        let Servers { rollbacks, successions, .. } = self.servers;
        if rollbacks == 0 || successions == 1 || !self.servers.has_trimmed() {
            assert!(missing <= lost, "{missing} events are missing, {lost} are counted");
        }
        if self.servers.rollbacks == 0 && !self.servers.has_trimmed() {
            assert_eq!(lost, 0, "nothing was lost");
        }
        if self.servers.rollbacks == 0 && !self.has_left {
            let read = |room: &Room| {
                let end = self.servers.room(&room.name).timeline.len() as u64;
                (end - room.base.unwrap_or(end), room.delivered.len() as u64)
            };
            let (accepted, delivered) = self.rooms.iter().map(read).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            let duplicates = self.metrics.duplicates.get();
            assert_eq!(duplicates, 0, "Redis takes nothing twice");
            assert_eq!(accepted, delivered + duplicates + lost, "accepted = delivered + {duplicates} + {lost}");
        }
    }

    /// Checks that events that are published from now on are delivered, in every subscribed room.
    pub(in crate::simulation) fn check_that_it_goes_on(&mut self) {
        for room in 0..self.rooms.len() {
            if !self.rooms[room].is_wanted {
                continue;
            }
            if self.rooms[room].since.is_none() {
                // The hub's subscription had failed. Now it is answered at once.
                self.rooms[room].is_wanted = false;
                self.subscribe(room);
                assert!(self.rooms[room].since.is_some(), "{} is not subscribed", self.rooms[room].name);
            }
            let before = self.rooms[room].delivered.len();
            self.publish(room, 9, 2, false);
            self.exchange_all();
            assert_eq!(self.rooms[room].delivered[before..], [(9, self.numbers - 1), (9, self.numbers)]);
        }
    }
}
