//! Latencies: histograms, and the figures that reports show of them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

use super::operation::Operation;

/// Significant digits of recorded times, and the longest of them in microseconds: an hour.
const DIGITS: u8 = 3;
const LONGEST: u64 = 3_600_000_000;

/// Times in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) min: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
    /// The whole HDR histogram: its V2 encoding in base64.
    pub(crate) histogram: String,
}

/// A [`Latency`] in short.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ShortLatency {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

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
        self.0.iter().map(|(operation, histogram)| (*operation, Latency::of(histogram))).collect()
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

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
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

    /// The whole histogram; none if it can't be read.
    pub(crate) fn decoded(&self) -> Option<Histogram<u64>> {
        decode(&self.histogram)
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes all");
    BASE64.encode(bytes)
}

fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = BASE64.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}
