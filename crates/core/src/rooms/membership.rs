//! Tracks which members each room has on this node. It does no I/O.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use slab::Slab;

use crate::id::RoomName;

/// Rooms and their members. `M` is the handle to a member.
///
/// A member is identified by its slot in its room, so leaving a room costs the same, however many
/// members it has. A room exists while it has members.
#[derive(Debug)]
pub struct RoomMembers<M> {
    rooms: HashMap<RoomName, Slab<M>>,
}

/// The result of adding a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The member's slot, which it needs to leave.
    pub slot: usize,
    /// Whether the room was empty. If it was, the node must subscribe to its events.
    pub first: bool,
}

/// The result of removing a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Whether the room is now empty. If it is, the node no longer needs its events.
    pub last: bool,
}

impl<M> RoomMembers<M> {
    /// Creates an empty set of rooms.
    pub fn new() -> Self {
        Self { rooms: HashMap::new() }
    }

    /// Adds a member. The caller must not add the same one twice.
    pub fn join(&mut self, room: &RoomName, member: M) -> Joined {
        // The room is looked up before it is inserted, so its name is cloned only for the first
        // member.
        match self.rooms.get_mut(room) {
            Some(members) => Joined { slot: members.insert(member), first: false },
            None => {
                let members = self.rooms.entry(room.clone()).or_insert_with(|| Slab::with_capacity(1));
                Joined { slot: members.insert(member), first: true }
            }
        }
    }

    /// Removes the member in this slot. Returns `None` if the slot is empty.
    pub fn leave(&mut self, room: &RoomName, slot: usize) -> Option<Left> {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.clone()) else { return None };
        entry.get_mut().try_remove(slot)?;
        let last = entry.get().is_empty();
        if last {
            entry.remove();
        }
        Some(Left { last })
    }

    /// Returns a room's members, in no particular order.
    pub fn members(&self, room: &RoomName) -> impl Iterator<Item = &M> {
        self.rooms.get(room).into_iter().flat_map(|members| members.iter().map(|(_, member)| member))
    }

    /// Returns how many members a room has.
    pub fn count(&self, room: &RoomName) -> usize {
        self.rooms.get(room).map_or(0, Slab::len)
    }

    /// Returns all rooms and how many members each has, in no particular order.
    pub fn counts(&self) -> impl Iterator<Item = (&RoomName, usize)> {
        self.rooms.iter().map(|(room, members)| (room, members.len()))
    }

    /// Returns how many rooms there are.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }
}

impl<M> Default for RoomMembers<M> {
    fn default() -> Self {
        Self::new()
    }
}
