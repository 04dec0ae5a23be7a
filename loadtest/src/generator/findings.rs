//! What a worker reports at the end.

use crate::clock::{Nanos, SECOND};
use crate::results::Histograms;

use super::clients::Clients;
use super::control::Findings;

/// What is measured goes from the start until nothing new is sent.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Time, CPU seconds and messages at its start.
    pub(crate) start: Option<(Nanos, f64, u64)>,
    /// From then to its end.
    pub(crate) spent: Option<(Nanos, f64, u64)>,
}

pub(crate) fn findings(clients: &Clients, measured: &Measured) -> Findings {
    let recorder = &clients.recorder;
    let (time, cpu, messages) = measured.spent.unwrap_or_default();
    Findings {
        ramp: recorder.ramp.encode(),
        steps: recorder.steps.iter().map(Histograms::encode).collect(),
        counts: recorder.counts,
        errors: recorder.errors.clone(),
        closes: recorder.closes.clone(),
        faults: clients.rooms.faults(),
        faulty_rooms: clients.rooms.faulty(),
        cpu,
        messages,
        seconds: time as f64 / SECOND as f64,
        marks: clients.marks.clone(),
    }
}
