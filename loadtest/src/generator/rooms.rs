//! The rooms of a process: their names on the wire, their ledgers, and the faults of all rooms.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomcast_protocol::{Name, NameError};

use crate::clock::Nanos;
use crate::ledger::{EVENT, Membership, Published, Read, Room, Stamp};
use crate::results::{Faults, FaultyRoom};

use super::placement::{PlacedRoom, Share};

/// How many rooms of other processes have their faults counted by room; those of further ones count as of no room.
const MAX_OTHER_ROOMS: usize = 1000;

/// A room on the wire and in the books.
#[derive(Debug)]
pub(crate) struct RoomState {
    pub(crate) placed: PlacedRoom,
    pub(crate) ledger: Room,
    pub(crate) publish: Name,
    pub(crate) join: Name,
    pub(crate) leave: Name,
}

/// All rooms of a process, numbered within it.
#[derive(Debug)]
pub(crate) struct Rooms {
    run: u32,
    share: Share,
    pub(crate) all: Vec<RoomState>,
    /// Faults of rooms that are in other processes, by their number in the run.
    others: BTreeMap<u32, Faults>,
    /// Faults that belong to no room.
    pub(crate) roomless: Faults,
}

/// What an event is to the client that received it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// An event of a room that it is in, planned at this time.
    Delivery { planned: Nanos },
    /// An event of another room.
    Misrouted(Stamp),
    /// Not even the stamp is intact.
    Corrupt,
}

impl Rooms {
    pub(crate) fn new(run: u32, share: Share, placed: Vec<PlacedRoom>) -> Result<Self, NameError> {
        let all = placed.into_iter().map(|placed| RoomState::new(run, placed)).collect::<Result<_, _>>()?;
        Ok(Self { run, share, all, others: BTreeMap::new(), roomless: Faults::default() })
    }

    pub(crate) fn ledger(&mut self, room: u32) -> &mut Room {
        &mut self.all[room as usize].ledger
    }

    /// The bytes of the next event of a publisher of this process, and its number among that publisher's.
    pub(crate) fn next_event(&mut self, room: u32, publisher: u32, len: usize, planned: Nanos) -> (Bytes, u64) {
        let state = &mut self.all[room as usize];
        let sequence = state.ledger.publish(publisher);
        let stamp = Stamp { run: self.run, room: state.placed.number, publisher, sequence, planned };
        (stamp.write(len), sequence)
    }

    /// Enters an event into the ledger of its room. Faults other than misrouting are counted.
    pub(crate) fn receive(&mut self, memberships: &mut [(u32, Membership)], payload: &[u8]) -> Receipt {
        let (stamp, is_whole) = match Stamp::read(payload) {
            Read::Whole(stamp) => (stamp, true),
            Read::BodyCorrupt(stamp) => (stamp, false),
            Read::Corrupt => {
                self.roomless.corrupted += 1;
                return Receipt::Corrupt;
            }
        };
        let local = self.local(&stamp);
        let joined = local.and_then(|local| memberships.iter_mut().find(|(room, _)| *room == local));
        let Some((room, membership)) = joined else { return Receipt::Misrouted(stamp) };
        let ledger = &mut self.all[*room as usize].ledger;
        ledger.faults.corrupted += u64::from(!is_whole);
        ledger.receive(membership, stamp.publisher, stamp.sequence);
        Receipt::Delivery { planned: stamp.planned }
    }

    /// Counts an event that came to a connection that is not in its room.
    pub(crate) fn count_misrouted(&mut self, stamp: &Stamp) {
        let faults = match self.local(stamp) {
            Some(local) => &mut self.all[local as usize].ledger.faults,
            None if stamp.run != self.run || self.others.len() >= MAX_OTHER_ROOMS => &mut self.roomless,
            None => self.others.entry(stamp.room).or_default(),
        };
        faults.misrouted += 1;
    }

    /// The number within the process of the room that an event is of.
    pub(crate) fn local(&self, stamp: &Stamp) -> Option<u32> {
        let local = match self.all.first()?.placed.spans_processes {
            true => stamp.room,
            false => stamp.room / self.share.of,
        };
        let is_it = stamp.run == self.run && self.all.get(local as usize)?.placed.number == stamp.room;
        is_it.then_some(local)
    }

    /// Whether rooms span processes: all do, or none.
    pub(crate) fn span_processes(&self) -> bool {
        self.all.iter().any(|room| room.placed.spans_processes)
    }

    /// What was published in rooms that span processes.
    pub(crate) fn published(&self) -> Vec<Published> {
        let spanning = self.all.iter().filter(|room| room.placed.spans_processes);
        spanning.map(|room| room.ledger.published(room.placed.number)).collect()
    }

    /// What other processes have published in rooms that span processes: those have the same number everywhere.
    pub(crate) fn learn(&mut self, published: &[Published]) {
        for published in published {
            if let Some(room) = self.all.get_mut(published.room as usize) {
                room.ledger.learn(published);
            }
        }
    }

    /// How many events are still missing in memberships.
    pub(crate) fn missing(&self, memberships: &[(u32, Membership)]) -> u64 {
        memberships.iter().map(|(room, membership)| self.all[*room as usize].ledger.missing(membership)).sum()
    }

    /// The faults of all rooms, and of none.
    pub(crate) fn faults(&self) -> Faults {
        let rooms = self.all.iter().map(|room| room.ledger.faults).chain(self.others.values().copied());
        rooms.fold(self.roomless, Faults::plus)
    }

    /// The worst rooms, by their names on the wire.
    pub(crate) fn faulty(&self) -> Vec<FaultyRoom> {
        let own = self.all.iter().map(|room| (room.placed.number, room.ledger.faults));
        let others = self.others.iter().map(|(number, faults)| (*number, *faults));
        let rooms = own
            .chain(others)
            .filter(|(_, faults)| faults.total() > 0)
            .map(|(number, faults)| FaultyRoom { room: room_name(self.run, number), faults });
        FaultyRoom::worst(rooms.collect())
    }
}

impl RoomState {
    fn new(run: u32, placed: PlacedRoom) -> Result<Self, NameError> {
        let room = room_name(run, placed.number);
        Ok(Self {
            ledger: Room::new(placed.publishers_in_all, placed.publishers.iter().map(|(number, _)| *number)),
            publish: Name::new(&format!("rooms/publish/{room}/{EVENT}"))?,
            join: Name::new(&format!("rooms/join/{room}"))?,
            leave: Name::new(&format!("rooms/leave/{room}"))?,
            placed,
        })
    }
}

/// A room's name on the wire.
fn room_name(run: u32, number: u32) -> String {
    format!("load-{run:08x}-{number}")
}
