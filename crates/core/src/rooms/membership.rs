//! Who is in which room, on this node: a pure map.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use slab::Slab;

use crate::id::RoomName;

/// Rooms and their members. `M` is what a member is reached by.
///
/// A member is known by its slot in its room, so that leaving a room costs the same however many are
/// in it. A room exists while it has members.
#[derive(Debug)]
pub struct RoomMembers<M> {
    rooms: HashMap<RoomName, Slab<M>>,
}

/// A member was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// By which to leave.
    pub slot: usize,
    /// The room was empty: its events must be subscribed to.
    pub first: bool,
}

/// A member was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The room is empty now: its events are no longer needed.
    pub last: bool,
}

impl<M> RoomMembers<M> {
    /// No rooms.
    pub fn new() -> Self {
        Self { rooms: HashMap::new() }
    }

    /// Adds a member. The caller must not add one twice.
    pub fn join(&mut self, room: &RoomName, member: M) -> Joined {
        // Looked up before it is inserted: the name is cloned for the first member only.
        match self.rooms.get_mut(room) {
            Some(members) => Joined { slot: members.insert(member), first: false },
            None => {
                let members = self.rooms.entry(room.clone()).or_insert_with(|| Slab::with_capacity(1));
                Joined { slot: members.insert(member), first: true }
            }
        }
    }

    /// Removes the member that joined with this slot. `None`: there is none.
    pub fn leave(&mut self, room: &RoomName, slot: usize) -> Option<Left> {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.clone()) else { return None };
        entry.get_mut().try_remove(slot)?;
        let last = entry.get().is_empty();
        if last {
            entry.remove();
        }
        Some(Left { last })
    }

    /// A room's members, in no order.
    pub fn members(&self, room: &RoomName) -> impl Iterator<Item = &M> {
        self.rooms.get(room).into_iter().flat_map(|members| members.iter().map(|(_, member)| member))
    }

    /// How many members a room has.
    pub fn count(&self, room: &RoomName) -> usize {
        self.rooms.get(room).map_or(0, Slab::len)
    }

    /// All rooms with their numbers of members, in no order.
    pub fn counts(&self) -> impl Iterator<Item = (&RoomName, usize)> {
        self.rooms.iter().map(|(room, members)| (room, members.len()))
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }
}

impl<M> Default for RoomMembers<M> {
    fn default() -> Self {
        Self::new()
    }
}
