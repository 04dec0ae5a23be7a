//! What a run found, from single measurements to the verdict.
//!
//! `histograms` and `counts` measure, `file` is everything together as JSON, `thresholds` decides whether a run passed.
//! A process of the generator fills in its part, the coordinator puts the parts together, and reports read them.
//! Imports `scenario` (results contain theirs), `clock` and `format`. No sockets, no processes; only `file` reads a file.

mod counts;
mod file;
mod histograms;
mod operation;
mod thresholds;

pub(crate) use counts::{Counts, CountsByName, Faults, FaultyRoom};
pub(crate) use file::{
    Cost, FORMAT, Interval, Mark, NodeSample, NodeSeries, Ramp, Results, ResultsError, Step, ThresholdResult,
};
pub(crate) use histograms::{EncodedHistograms, Histograms, Latency, ShortLatency};
pub(crate) use operation::{Operation, main_operation};
pub(crate) use thresholds::Thresholds;
