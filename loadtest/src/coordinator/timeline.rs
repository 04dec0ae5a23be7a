//! What happened when, over all processes.

use std::collections::BTreeMap;

use crate::clock::{Nanos, SECOND, since};
use crate::generator::Progress;
use crate::results::{EncodedHistograms, Histograms, Interval};

/// Intervals by their numbers.
#[derive(Debug)]
pub(crate) struct Timeline {
    origin: Nanos,
    length: Nanos,
    moments: BTreeMap<u64, Moment>,
    /// Each worker's last word, but for its histograms.
    last: BTreeMap<usize, Progress>,
    /// CPU seconds that each worker used in its last interval, as a part of it.
    busy: BTreeMap<usize, f64>,
}

/// One interval.
#[derive(Debug, Default)]
struct Moment {
    /// As they came: decoded, each takes 200 KB, and a long run has thousands of them.
    histograms: Vec<EncodedHistograms>,
    /// By worker: open connections; errors and faults so far.
    workers: BTreeMap<usize, (u64, u64, u64)>,
}

impl Moment {
    fn merged(&self) -> Histograms {
        Histograms::merged(&self.histograms)
    }
}

impl Timeline {
    pub(crate) fn new(origin: Nanos, length: Nanos) -> Self {
        Self { origin, length, moments: BTreeMap::new(), last: BTreeMap::new(), busy: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, worker: usize, mut progress: Progress) {
        let moment = self.moments.entry(progress.number).or_default();
        moment.histograms.push(std::mem::take(&mut progress.histograms));
        moment.workers.insert(worker, (progress.connections, progress.errors, progress.faults));
        if let Some(before) = self.last.get(&worker) {
            let seconds = (progress.number - before.number) as f64 * self.length as f64 / SECOND as f64;
            if seconds > 0.0 {
                self.busy.insert(worker, (progress.cpu - before.cpu) / seconds);
            }
        }
        self.last.insert(worker, progress);
    }

    /// Open connections, as last told.
    pub(crate) fn connections(&self) -> u64 {
        self.last.values().map(|progress| progress.connections).sum()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.last.values().map(|progress| progress.errors).sum()
    }

    pub(crate) fn faults(&self) -> u64 {
        self.last.values().map(|progress| progress.faults).sum()
    }

    /// How much of a CPU the busiest worker used in its last interval.
    pub(crate) fn busy(&self) -> f64 {
        self.busy.values().copied().fold(0.0, f64::max)
    }

    /// The last interval that all workers have told of.
    pub(crate) fn latest(&self) -> Option<Histograms> {
        let workers = self.last.len();
        self.moments.values().rev().find(|moment| moment.workers.len() == workers).map(Moment::merged)
    }

    /// Whether all workers have told of what happened up to a time.
    pub(crate) fn is_told_until(&self, at: Nanos) -> bool {
        self.last.values().all(|progress| progress.number >= self.number(at).saturating_sub(1))
    }

    /// What was told of a time, and how many of its seconds: to the end of the last interval in it. A part of an interval
    /// from before is in it, too.
    pub(crate) fn between(&self, from: Nanos, until: Nanos) -> (Histograms, f64) {
        let mut all = Histograms::default();
        for (_, moment) in self.moments.range(self.number(from)..self.number(until)) {
            all.merge(&moment.merged());
        }
        (all, since(self.origin + self.number(until) * self.length, from))
    }

    fn number(&self, at: Nanos) -> u64 {
        at.saturating_sub(self.origin) / self.length
    }

    /// For the report, counted from the start of what is measured.
    pub(crate) fn intervals(&self, start: Nanos) -> Vec<Interval> {
        let mut so_far = (0, 0);
        // Who says nothing in an interval is as it was.
        let mut workers = BTreeMap::new();
        let interval = |(number, moment): (&u64, &Moment)| {
            workers.extend(moment.workers.clone());
            let sum = |part: fn(&(u64, u64, u64)) -> u64| workers.values().map(part).sum::<u64>();
            let (errors, faults) = (sum(|worker| worker.1), sum(|worker| worker.2));
            let before = std::mem::replace(&mut so_far, (errors, faults));
            Interval {
                at: since(self.origin + (number + 1) * self.length, start),
                connections: sum(|worker| worker.0),
                operations: moment.merged().short_latencies(),
                errors: errors.saturating_sub(before.0),
                faults: faults.saturating_sub(before.1),
            }
        };
        self.moments.iter().map(interval).collect()
    }
}
