//! Which process has which connections, rooms, members and publishers.
//!
//! A room lives in one process, members and publishers, so that the process knows at every moment what a member
//! must still get. Only a room with more members than a process has connections spans all processes.

use crate::scenario::Scenario;

/// A generator process among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) index: u32,
    pub(crate) of: u32,
}

impl Share {
    /// How many of `total` are this one's: those with numbers that leave `index` when divided by `of`.
    pub(crate) fn of(self, total: u32) -> u32 {
        (total + self.of - 1 - self.index) / self.of
    }

    /// The number among all of this one's `own`.
    fn number(self, own: u32) -> u32 {
        own * self.of + self.index
    }

    /// Where this process is within an interval that all share.
    pub(crate) fn phase(self) -> f64 {
        f64::from(self.index) / f64::from(self.of)
    }
}

/// A process' part of a room. Connections are numbered within the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedRoom {
    /// The room's number in the run.
    pub(crate) number: u32,
    pub(crate) members: Vec<u32>,
    /// Publishers of this process: their number in the room, and their connection.
    pub(crate) publishers: Vec<(u32, u32)>,
    /// Over all processes.
    pub(crate) publishers_in_all: u32,
    pub(crate) spans_processes: bool,
}

/// A process' connections.
pub(crate) fn connections(scenario: &Scenario, share: Share) -> u32 {
    share.of(scenario.connections)
}

/// A process' rooms.
pub(crate) fn rooms(scenario: &Scenario, share: Share) -> Vec<PlacedRoom> {
    let publish = &scenario.publish;
    let members = publish.members.min(scenario.connections);
    let smallest = Share { index: share.of - 1, of: share.of };
    let spans_processes = members > connections(scenario, smallest);
    let publishers = publish.publishers.min(members);
    if spans_processes {
        let own: Vec<u32> = (0..share.of(members)).collect();
        let publisher = |own| (share.number(own), own);
        return (0..publish.rooms)
            .map(|number| PlacedRoom {
                number,
                members: own.clone(),
                publishers: (0..share.of(publishers)).map(publisher).collect(),
                publishers_in_all: publishers,
                spans_processes,
            })
            .collect();
    }
    let connections = connections(scenario, share);
    (0..share.of(publish.rooms))
        .map(|own| {
            // In 64 bits: rooms times members may be more than 32 hold.
            let first = u64::from(own) * u64::from(members);
            let member = |member| ((first + u64::from(member)) % u64::from(connections)) as u32;
            PlacedRoom {
                number: share.number(own),
                members: (0..members).map(member).collect(),
                publishers: (0..publishers).map(|number| (number, member(number))).collect(),
                publishers_in_all: publishers,
                spans_processes,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A room's members, with their process, and its publishers.
    type Found = (BTreeSet<(u32, u32)>, BTreeSet<u32>);

    proptest! {
        #[test]
        fn every_room_has_its_members_and_publishers_once(
            connections in 1..60_u32, rooms in 0..20_u32, members in 1..70_u32, publishers in 0..70_u32, of in 1..5_u32,
        ) {
            prop_assume!(connections >= of);
            let mut scenario = Scenario::builtin("chat").expect("it is built in");
            scenario.connections = connections;
            (scenario.publish.rooms, scenario.publish.members, scenario.publish.publishers) = (rooms, members, publishers);
            let mut found: BTreeMap<u32, Found> = BTreeMap::new();
            let mut total = 0;
            for index in 0..of {
                let share = Share { index, of };
                let own = super::connections(&scenario, share);
                total += own;
                for room in super::rooms(&scenario, share) {
                    let (all_members, all_publishers) = found.entry(room.number).or_default();
                    for member in &room.members {
                        prop_assert!(*member < own);
                        prop_assert!(all_members.insert((index, *member)), "twice a member");
                    }
                    for (number, connection) in &room.publishers {
                        prop_assert!(room.members.contains(connection));
                        prop_assert!(all_publishers.insert(*number), "twice a publisher");
                    }
                }
            }
            prop_assert_eq!(total, connections);
            prop_assert_eq!(found.len(), rooms as usize);
            let members = members.min(connections);
            for (room_members, room_publishers) in found.values() {
                prop_assert_eq!(room_members.len(), members as usize);
                let expected: BTreeSet<u32> = (0..publishers.min(members)).collect();
                prop_assert_eq!(room_publishers, &expected);
            }
        }
    }
}
