//! What a process measures: latencies and counts, by interval and by step.

use super::pacer::Schedule;
use crate::clock::Nanos;
use crate::results::{Counts, CountsByName, Histograms, Operation};

/// One process' measurements.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// None until the measured time is planned.
    pub(crate) schedule: Option<Schedule>,
    /// Since the last interval's end.
    interval: Histograms,
    /// Before the start.
    pub(crate) ramp: Histograms,
    /// By the planned time.
    pub(crate) steps: Vec<Histograms>,
    pub(crate) counts: Counts,
    pub(crate) errors: CountsByName,
    pub(crate) closes: CountsByName,
}

impl Recorder {
    /// From now on what is planned after the start is a step's.
    pub(crate) fn start(&mut self, schedule: Schedule) {
        self.steps = vec![Histograms::default(); schedule.loads.len()];
        self.schedule = Some(schedule);
    }

    pub(crate) fn record(&mut self, operation: Operation, planned: Nanos, now: Nanos) {
        let time = now.saturating_sub(planned);
        self.interval.record(operation, time);
        let step = self.schedule.as_ref().and_then(|schedule| schedule.step_at(planned));
        step.and_then(|step| self.steps.get_mut(step)).unwrap_or(&mut self.ramp).record(operation, time);
    }

    pub(crate) fn error(&mut self, name: &str) {
        self.errors.add(name, 1);
    }

    /// What was recorded since the last time.
    pub(crate) fn take_interval(&mut self) -> Histograms {
        std::mem::take(&mut self.interval)
    }
}
