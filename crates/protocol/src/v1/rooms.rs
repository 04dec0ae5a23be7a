//! The rooms of a client's connection, and the client's position in each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::frame::Name;
use crate::v1::limits::MAX_ROOMS;
use crate::v1::violation::Violation;

/// A membership, and the position in its room. A client that joins the room again gives `epoch` and
/// `offset` as `since`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The room's name.
    pub name: Name,
    /// The epoch.
    pub epoch: Name,
    /// The offset of the last event that arrived or was lost.
    pub offset: u64,
}

/// The rooms that the server has announced, by their numbers.
#[derive(Debug, Default)]
pub struct Rooms {
    by_number: HashMap<u64, Room>,
}

impl Rooms {
    /// Returns a room by its number, which is in Event and Gap frames.
    pub fn get(&self, number: u64) -> Option<&Room> {
        self.by_number.get(&number)
    }

    /// Returns all rooms, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Room> {
        self.by_number.values()
    }

    /// Begins a membership, or an epoch of its room.
    pub(super) fn announce(&mut self, number: u64, room: Room) -> Result<(), Violation> {
        let is_full = self.by_number.len() >= MAX_ROOMS;
        match self.by_number.entry(number) {
            Entry::Vacant(_) if is_full => return Err(Violation::TooManyRooms),
            Entry::Vacant(entry) => {
                entry.insert(room);
            }
            Entry::Occupied(entry) if entry.get().name != room.name || entry.get().epoch == room.epoch => {
                return Err(Violation::RoomAnnouncedTwice(number));
            }
            Entry::Occupied(mut entry) => {
                entry.insert(room);
            }
        }
        Ok(())
    }

    /// Moves the position of a room past the events `from` to `to`, which have arrived or are lost.
    pub(super) fn advance(&mut self, number: u64, from: u64, to: u64) -> Result<(), Violation> {
        let room = self.by_number.get_mut(&number).ok_or(Violation::UnknownRoom(number))?;
        let not_later = |offset, position| Err(Violation::OffsetNotLater { room: number, offset, position });
        if from <= room.offset {
            return not_later(from, room.offset);
        }
        if to < from {
            return not_later(to, from - 1);
        }
        room.offset = to;
        Ok(())
    }

    /// Ends a membership.
    pub(super) fn leave(&mut self, number: u64) -> Result<Room, Violation> {
        self.by_number.remove(&number).ok_or(Violation::UnknownRoom(number))
    }
}
