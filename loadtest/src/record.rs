//! What a process measures: histograms and counts, by interval and by step.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::pacer::Schedule;
use crate::results::{Counts, Latency, Operation, ShortLatency};

/// Significant digits of recorded times, and the longest of them in microseconds: an hour.
const DIGITS: u8 = 3;
const LONGEST: u64 = 3_600_000_000;

/// Errors are counted under at most so many names, then under [`OTHER`].
const MAX_NAMES: usize = 100;
const OTHER: &str = "other";

/// A histogram in microseconds for each operation that happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histograms(BTreeMap<Operation, Histogram<u64>>);

/// [`Histograms`] on their way between processes: each one's V2 encoding in base64.
pub(crate) type EncodedHistograms = BTreeMap<Operation, String>;

impl Histograms {
    pub(crate) fn record(&mut self, operation: Operation, time: Nanos) {
        // A shortest time of 1 µs: 0 has no place on a logarithmic axis.
        self.of(operation).saturating_record((time / 1000).clamp(1, LONGEST));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (operation, histogram) in &other.0 {
            self.of(*operation).add(histogram).expect("they have the same bounds");
        }
    }

    pub(crate) fn get(&self, operation: Operation) -> Option<&Histogram<u64>> {
        self.0.get(&operation)
    }

    fn of(&mut self, operation: Operation) -> &mut Histogram<u64> {
        self.0.entry(operation).or_insert_with(|| {
            Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("such bounds and digits are allowed")
        })
    }

    pub(crate) fn encode(&self) -> EncodedHistograms {
        self.0.iter().map(|(operation, histogram)| (*operation, encode(histogram))).collect()
    }

    /// Those of several processes or intervals together.
    pub(crate) fn merged<'a>(encoded: impl IntoIterator<Item = &'a EncodedHistograms>) -> Self {
        let mut all = Self::default();
        encoded.into_iter().for_each(|encoded| all.merge(&Self::decode(encoded)));
        all
    }

    /// What cannot be read is left out: it comes from a process of ours.
    fn decode(encoded: &EncodedHistograms) -> Self {
        Self(encoded.iter().filter_map(|(operation, text)| Some((*operation, decode(text)?))).collect())
    }

    pub(crate) fn latencies(&self) -> BTreeMap<Operation, Latency> {
        self.0.iter().map(|(operation, histogram)| (*operation, latency(histogram))).collect()
    }

    pub(crate) fn short_latencies(&self) -> BTreeMap<Operation, ShortLatency> {
        let short = |histogram: &Histogram<u64>| ShortLatency {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        };
        self.0.iter().map(|(operation, histogram)| (*operation, short(histogram))).collect()
    }
}

/// A histogram with its figures, as it is reported.
pub(crate) fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        count: histogram.len(),
        mean: histogram.mean(),
        min: histogram.min(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        histogram: encode(histogram),
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes all");
    BASE64.encode(bytes)
}

/// A histogram from its V2 encoding in base64.
pub(crate) fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = BASE64.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// Counts by name, with a bound on the names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Names(pub(crate) BTreeMap<String, u64>);

impl Names {
    pub(crate) fn add(&mut self, name: &str, count: u64) {
        let name = if self.0.len() < MAX_NAMES || self.0.contains_key(name) { name } else { OTHER };
        *self.0.entry(name.to_owned()).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

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
    pub(crate) errors: Names,
    pub(crate) closes: Names,
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
