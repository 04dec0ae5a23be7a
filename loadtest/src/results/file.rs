//! The results file: what a run found, as JSON.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::scenario::Scenario;

use super::counts::{Counts, Faults, FaultyRoom};
use super::histograms::{Latency, ShortLatency};
use super::operation::Operation;

/// The version of the JSON; others are refused.
pub(crate) const FORMAT: u32 = 2;

/// The beginning of the JSON's only line.
const START: &str = "{\"format\":";

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    /// The tool's version.
    pub(crate) version: String,
    /// When it began, in RFC 3339, UTC.
    pub(crate) started: String,
    pub(crate) scenario: Scenario,
    pub(crate) urls: Vec<String>,
    /// Generator processes.
    pub(crate) processes: usize,
    /// Ended by Ctrl-C or SIGTERM.
    pub(crate) ended_early: bool,
    /// Seconds measured.
    pub(crate) seconds: f64,
    pub(crate) ramp: Ramp,
    pub(crate) steps: Vec<Step>,
    /// The index of the knee among the steps; none if there is one step, or if even the first is over it.
    pub(crate) knee: Option<usize>,
    /// All steps together, and the ramp (connect, join). What did not happen is not here.
    pub(crate) operations: BTreeMap<Operation, Latency>,
    pub(crate) counts: Counts,
    pub(crate) faults: Faults,
    /// The rooms with faults, worst first, as many as [`FaultyRoom::worst`] keeps.
    pub(crate) faulty_rooms: Vec<FaultyRoom>,
    /// What went wrong without being a fault, by what it was: `call NOT_FOUND`, `connect refused`.
    pub(crate) errors: BTreeMap<String, u64>,
    /// How the program of `exec` failed.
    pub(crate) exec_failure: Option<String>,
    /// Connections that the other side ended, by close code; `lost` for one without a closing handshake.
    pub(crate) closes: BTreeMap<String, u64>,
    /// The length of an interval in seconds.
    pub(crate) interval: f64,
    pub(crate) intervals: Vec<Interval>,
    /// What was done when, for the plots.
    pub(crate) marks: Vec<Mark>,
    pub(crate) nodes: Vec<NodeSeries>,
    pub(crate) cost: Cost,
    pub(crate) thresholds: Vec<ThresholdResult>,
    /// All thresholds passed.
    pub(crate) passed: bool,
}

/// How the connections were opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ramp {
    /// Open, with all rooms joined, at its end.
    pub(crate) connections: u64,
    /// Seconds until then.
    pub(crate) seconds: f64,
    pub(crate) connections_per_second: f64,
    /// Growth of the nodes' resident memory by connection, if their metrics were scraped.
    pub(crate) node_bytes_per_connection: Option<f64>,
}

/// A time of one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The multiple of the scenario's rates.
    pub(crate) load: f64,
    /// Seconds from the start of what is measured.
    pub(crate) from: f64,
    pub(crate) until: f64,
    /// Planned a second: publishes and calls.
    pub(crate) offered: f64,
    /// Of these, answered without an error.
    pub(crate) achieved: f64,
    /// Events received by members, a second.
    pub(crate) deliveries: f64,
    pub(crate) operations: BTreeMap<Operation, Latency>,
}

/// What happened in a short time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Its end: seconds from the start of what is measured; negative in the ramp.
    pub(crate) at: f64,
    /// Open at its end.
    pub(crate) connections: u64,
    pub(crate) operations: BTreeMap<Operation, ShortLatency>,
    pub(crate) errors: u64,
    pub(crate) faults: u64,
}

/// Something to know when looking at a plot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Seconds from the start of what is measured.
    pub(crate) at: f64,
    pub(crate) what: String,
}

/// What a node said about itself meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeSeries {
    /// Where its metrics are.
    pub(crate) url: String,
    pub(crate) samples: Vec<NodeSample>,
    /// Scrapes that failed.
    pub(crate) failed: u64,
}

/// One scrape: metric names without labels (summed over them) and their values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeSample {
    /// Seconds from the start of what is measured; negative in the ramp.
    pub(crate) at: f64,
    pub(crate) values: BTreeMap<String, f64>,
}

/// What a message cost, over what is measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// WebSocket messages sent and received by the generator: each is one of the nodes', too.
    pub(crate) messages: u64,
    /// CPU time of all generator processes, in seconds.
    pub(crate) generator_cpu: f64,
    pub(crate) generator_us_per_message: f64,
    /// How much of one CPU the busiest generator process used: near 1, it was the limit, and not the nodes.
    pub(crate) generator_busy: f64,
    /// CPU time of all nodes, in seconds, if their metrics were scraped.
    pub(crate) node_cpu: Option<f64>,
    pub(crate) node_us_per_message: Option<f64>,
}

/// A threshold, compared with what a run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ThresholdResult {
    /// Such as `p99<50ms`.
    pub(crate) threshold: String,
    /// The value that it limits, with its unit.
    pub(crate) found: String,
    pub(crate) passed: bool,
}

/// Why a results file can't be used.
#[derive(Debug, Error)]
pub(crate) enum ResultsError {
    #[error("cannot read {file}: {error}")]
    Io { file: String, error: io::Error },
    #[error("{file} contains no results: {error}")]
    NoResults { file: String, error: serde_json::Error },
    #[error(
        "{file} has results of format {format}, but roomcast-loadtest {} reads format {FORMAT}: repeat the run, or use \
         the version that wrote the file", env!("CARGO_PKG_VERSION")
    )]
    Format { file: String, format: u32 },
}

impl Results {
    /// Reads a file that `--json` wrote, or the log of a Kubernetes Job that has the JSON among its lines.
    pub(crate) fn read(file: &str) -> Result<Self, ResultsError> {
        /// Read first, since the rest may be another version's.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let named = || file.to_owned();
        let text = std::fs::read_to_string(file).map_err(|error| ResultsError::Io { file: named(), error })?;
        let json = text.lines().find(|line| line.starts_with(START)).unwrap_or(&text);
        let no_results = |error| ResultsError::NoResults { file: named(), error };
        let Format { format } = serde_json::from_str(json).map_err(no_results)?;
        if format != FORMAT {
            return Err(ResultsError::Format { file: named(), format });
        }
        serde_json::from_str(json).map_err(no_results)
    }
}
