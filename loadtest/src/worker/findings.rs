//! What a worker tells at the end.

use crate::clients::Clients;
use crate::clock::SECOND;
use crate::control::Findings;
use crate::record::Histograms;
use crate::results::FaultyRoom;
use crate::worker::Measured;
use crate::worker::setup::room_name;

pub(super) fn findings(clients: &Clients, measured: &Measured) -> Findings {
    let recorder = &clients.recorder;
    let (time, cpu, messages) = measured.spent.unwrap_or_default();
    Findings {
        ramp: recorder.ramp.encode(),
        steps: recorder.steps.iter().map(Histograms::encode).collect(),
        counts: recorder.counts,
        errors: recorder.errors.clone(),
        closes: recorder.closes.clone(),
        faults: clients.all_faults(),
        faulty_rooms: faulty_rooms(clients),
        cpu,
        messages,
        seconds: time as f64 / SECOND as f64,
        marks: clients.marks.clone(),
    }
}

fn faulty_rooms(clients: &Clients) -> Vec<FaultyRoom> {
    let own = clients.rooms.iter().map(|room| (room.placed.number, room.ledger.faults));
    let others = clients.other_rooms.iter().map(|(number, faults)| (*number, *faults));
    let rooms = own
        .chain(others)
        .filter(|(_, faults)| faults.total() > 0)
        .map(|(number, faults)| FaultyRoom { room: room_name(clients.run, number), faults });
    FaultyRoom::worst(rooms.collect())
}
