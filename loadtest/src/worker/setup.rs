//! A worker's clients, rooms and connections, as its assignment wants them.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;

use bytes::Bytes;
use mio::Registry;
use roomcast_protocol::{Name, NameError};
use thiserror::Error;

use crate::clients::{Client, Clients, RoomState};
use crate::clock;
use crate::control::Assignment;
use crate::fleet::Fleet;
use crate::ledger::Room;
use crate::placement::{self, PlacedRoom, Share};
use crate::record::Recorder;
use crate::results::Faults;
use crate::stamp::EVENT;
use crate::stream::{TlsError, tls_config};

/// Why a worker can't begin.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a method's name: {0}")]
    Name(#[from] NameError),
}

/// A room's name on the wire.
pub(crate) fn room_name(run: u32, number: u32) -> String {
    format!("load-{run:08x}-{number}")
}

/// Everything is there, and nothing is open.
pub(crate) fn fleet(assignment: &Assignment, registry: &Registry) -> Result<Fleet, SetupError> {
    let share = Share { index: assignment.index, of: assignment.processes };
    let scenario = &assignment.scenario;
    let count = placement::connections(scenario, share);
    let mut clients: Vec<_> = (0..count).map(|_| Client::default()).collect();
    let mut rooms = Vec::new();
    for placed in placement::rooms(scenario, share) {
        for member in &placed.members {
            clients[*member as usize].rooms.push(rooms.len() as u32);
        }
        rooms.push(room(assignment.run, placed)?);
    }
    let clients = Clients {
        run: assignment.run,
        share,
        clients,
        rooms,
        recorder: Recorder::default(),
        faults: Faults::default(),
        other_rooms: BTreeMap::new(),
        marks: Vec::new(),
        gauges: Vec::new(),
        call_payload: Bytes::from(vec![b'x'; scenario.call.payload]),
        timeout: clock::nanos(scenario.timeout),
        deadlines: VecDeque::new(),
        rejoins: BinaryHeap::new(),
        settled: 0,
        open: 0,
    };
    let tls = tls_config(assignment.ca.as_deref())?;
    let ways = (assignment.targets.clone(), assignment.sources.clone());
    Ok(Fleet::new(registry.try_clone()?, tls, ways, clients))
}

fn room(run: u32, placed: PlacedRoom) -> Result<RoomState, NameError> {
    let room = room_name(run, placed.number);
    Ok(RoomState {
        ledger: Room::new(placed.publishers_in_all, placed.publishers.iter().map(|(number, _)| *number)),
        publish: Name::new(&format!("rooms/publish/{room}/{EVENT}"))?,
        join: Name::new(&format!("rooms/join/{room}"))?,
        leave: Name::new(&format!("rooms/leave/{room}"))?,
        placed,
    })
}
