//! The map of rooms and members, against a list.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use roomcast_core::{Left, RoomMembers, RoomName};

/// Few, so that they become empty and come back.
const ROOMS: [&str; 4] = ["a", "b", "a-b", "ü"];

#[derive(Debug, Clone)]
enum Op {
    /// A new member joins one of the rooms.
    Join(usize),
    /// One of those who are members leaves.
    Leave(Index),
    /// Somebody leaves by a slot that may have no member.
    LeaveBySlot(usize, usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..ROOMS.len()).prop_map(Op::Join),
        4 => any::<Index>().prop_map(Op::Leave),
        1 => (0..ROOMS.len(), 0..8_usize).prop_map(|(room, slot)| Op::LeaveBySlot(room, slot)),
    ]
}

/// Who is where, by which slot.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    room: usize,
    slot: usize,
    member: usize,
}

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    joins: usize,
}

impl Model {
    fn join(&mut self, rooms: &mut RoomMembers<usize>, room: usize) {
        let (first, member) = (self.of(room).count() == 0, self.joins);
        let joined = rooms.join(&name(room), member);
        assert_eq!(joined.first, first, "whether {member} is the first of room {room}");
        assert!(self.of(room).all(|other| other.slot != joined.slot), "slot {} is taken", joined.slot);
        self.entries.push(Entry { room, slot: joined.slot, member });
        self.joins += 1;
    }

    fn leave(&mut self, rooms: &mut RoomMembers<usize>, room: usize, slot: usize) {
        let found = self.entries.iter().position(|entry| (entry.room, entry.slot) == (room, slot));
        let expected = found.map(|index| {
            self.entries.swap_remove(index);
            Left { last: self.of(room).count() == 0 }
        });
        assert_eq!(rooms.leave(&name(room), slot), expected, "leaving slot {slot} of room {room}");
    }

    fn of(&self, room: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.room == room)
    }

    fn assert_same(&self, rooms: &RoomMembers<usize>) {
        for room in 0..ROOMS.len() {
            let mut members: Vec<usize> = rooms.members(&name(room)).copied().collect();
            let mut expected: Vec<usize> = self.of(room).map(|entry| entry.member).collect();
            members.sort_unstable();
            expected.sort_unstable();
            assert_eq!(members, expected, "the members of room {room}");
        }
        let with_members: BTreeSet<usize> = self.entries.iter().map(|entry| entry.room).collect();
        assert_eq!(rooms.rooms(), with_members.len(), "a room exists while it has members");
    }
}

fn name(room: usize) -> RoomName {
    RoomName::new(ROOMS[room]).expect("a valid name")
}

proptest! {
    #[test]
    fn a_membership_is_a_list_of_rooms_and_members(ops in vec(any_op(), 0..100)) {
        let (mut rooms, mut model) = (RoomMembers::new(), Model::default());
        for op in ops {
            match op {
                Op::Join(room) => model.join(&mut rooms, room),
                Op::Leave(which) if !model.entries.is_empty() => {
                    let Entry { room, slot, .. } = *which.get(&model.entries);
                    model.leave(&mut rooms, room, slot);
                }
                Op::Leave(_) => {}
                Op::LeaveBySlot(room, slot) => model.leave(&mut rooms, room, slot),
            }
            model.assert_same(&rooms);
        }
        for Entry { room, slot, .. } in model.entries.clone() {
            model.leave(&mut rooms, room, slot);
        }
        model.assert_same(&rooms);
    }
}
