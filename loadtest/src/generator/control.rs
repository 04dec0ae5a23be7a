//! What the processes of a run tell each other: a JSON object a line, over standard input and output.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::client::{Target, Tokens};
use crate::clock::Nanos;
use crate::ledger::Published;
use crate::results::{Counts, CountsByName, EncodedHistograms, Faults, FaultyRoom};
use crate::scenario::Scenario;

/// To a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// First: what it is to do.
    Prepare(Box<Assignment>),
    /// When all are ready: what is measured begins at this moment.
    Start { at: Nanos },
    /// Nothing new from now on.
    Stop,
    /// What the other processes have published in rooms that span processes: nothing else is to be expected.
    Settle(Vec<Published>),
}

/// From a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Its connections are open and have joined their rooms, or took too long.
    Ready {
        open: u32,
    },
    Progress(Progress),
    /// It sends nothing new any more; what it has published in rooms that span processes.
    Stopped(Vec<Published>),
    /// It has ended.
    Done(Box<Findings>),
    /// It could not begin.
    Failed(String),
}

/// A process' part of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) scenario: Scenario,
    /// This process among the others.
    pub(crate) index: u32,
    pub(crate) processes: u32,
    /// In the names of rooms and in stamps.
    pub(crate) run: u32,
    pub(crate) targets: Vec<Target>,
    /// Own addresses; empty: the system's choice.
    pub(crate) sources: Vec<IpAddr>,
    /// CA certificates (PEM) besides the system's.
    pub(crate) ca: Option<String>,
    /// `None`: clients send no tokens.
    pub(crate) tokens: Option<Tokens>,
    /// When intervals are counted from, and their length.
    pub(crate) origin: Nanos,
    pub(crate) interval: Nanos,
}

/// What happened in an interval.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The interval's number from the origin.
    pub(crate) number: u64,
    /// Open now.
    pub(crate) connections: u64,
    pub(crate) histograms: EncodedHistograms,
    /// All so far.
    pub(crate) errors: u64,
    pub(crate) faults: u64,
    /// CPU seconds of the process so far.
    pub(crate) cpu: f64,
}

/// All that a process found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) ramp: EncodedHistograms,
    pub(crate) steps: Vec<EncodedHistograms>,
    pub(crate) counts: Counts,
    pub(crate) errors: CountsByName,
    pub(crate) closes: CountsByName,
    /// Of all rooms, and of none.
    pub(crate) faults: Faults,
    pub(crate) faulty_rooms: Vec<FaultyRoom>,
    /// From the start of what is measured until nothing new was sent: CPU seconds, and messages.
    pub(crate) cpu: f64,
    pub(crate) messages: u64,
    /// The same, in seconds of time.
    pub(crate) seconds: f64,
    /// What storms and the like happened when.
    pub(crate) marks: Vec<(Nanos, String)>,
}
