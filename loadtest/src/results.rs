//! What a run found: written as JSON, read again by `report` and `curve`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// The version of the JSON; others are refused.
pub(crate) const FORMAT: u32 = 2;

/// Something that takes time. Latencies of what is planned count from the planned time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// From the planned time to the end of the opening handshake.
    Connect,
    /// A room joined: request to answer.
    Join,
    /// A room left: request to answer.
    Leave,
    /// An event published: planned time to answer.
    Publish,
    /// An event at one member: planned time to receipt.
    Delivery,
    /// A call: planned time to answer.
    Call,
    /// Cancellation: planned time of the Reset to the node's word that the work has ended.
    Cancel,
    /// A lost connection: until it is open again and has joined its rooms.
    Reconnect,
    /// The generator's own lateness: from the planned time until it turns to it. It is a part of the latencies above.
    SendDelay,
}

impl Operation {
    /// All, in the order of reports.
    pub(crate) const ALL: [Self; 9] = [
        Self::Connect,
        Self::Join,
        Self::Leave,
        Self::Publish,
        Self::Delivery,
        Self::Call,
        Self::Cancel,
        Self::Reconnect,
        Self::SendDelay,
    ];

    /// As in JSON and in thresholds.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Publish => "publish",
            Self::Delivery => "delivery",
            Self::Call => "call",
            Self::Cancel => "cancel",
            Self::Reconnect => "reconnect",
            Self::SendDelay => "send_delay",
        }
    }
}

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
    /// The rooms with faults, worst first, at most [`MAX_FAULTY_ROOMS`].
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

/// The most rooms that are named for their faults.
const MAX_FAULTY_ROOMS: usize = 100;

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

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Openings that succeeded, reconnections included.
    pub(crate) connections_opened: u64,
    /// Events published and accepted.
    pub(crate) published: u64,
    /// Events received by members.
    pub(crate) delivered: u64,
    /// Calls answered without an error.
    pub(crate) called: u64,
    /// Calls cancelled.
    pub(crate) cancelled: u64,
    /// Planned, but there was no open connection to send it on, or too much was under way already.
    pub(crate) unsent: u64,
    /// Failed without a response: calls, joins and publishes that timed out, and connections that ended without a Close.
    /// The errors count them, too.
    pub(crate) no_response: u64,
    /// Notifications that this tool did not publish.
    pub(crate) unexpected: u64,
    /// WebSocket messages sent and received by the generator.
    pub(crate) messages: u64,
}

impl Counts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connections_opened: self.connections_opened + other.connections_opened,
            published: self.published + other.published,
            delivered: self.delivered + other.delivered,
            called: self.called + other.called,
            cancelled: self.cancelled + other.cancelled,
            unsent: self.unsent + other.unsent,
            no_response: self.no_response + other.no_response,
            unexpected: self.unexpected + other.unexpected,
            messages: self.messages + other.messages,
        }
    }
}

/// What must not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Events that were accepted and did not reach a member.
    pub(crate) lost: u64,
    /// Events that reached a member more than once.
    pub(crate) duplicated: u64,
    /// Events that reached a member in another order than they were published, or than they reached other members.
    pub(crate) reordered: u64,
    /// Events of a room that reached a connection that is not its member.
    pub(crate) misrouted: u64,
    /// Events and answers whose bytes changed.
    pub(crate) corrupted: u64,
    /// Responses that match no call in flight: to calls that were cancelled, answered already, or never made.
    pub(crate) unmatched: u64,
    /// Cancelled calls that the node did not end.
    pub(crate) orphaned: u64,
}

impl Faults {
    /// Each with its name, in the order of reports.
    pub(crate) fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("misrouted", self.misrouted),
            ("corrupted", self.corrupted),
            ("unmatched", self.unmatched),
            ("orphaned", self.orphaned),
        ]
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            misrouted: self.misrouted + other.misrouted,
            corrupted: self.corrupted + other.corrupted,
            unmatched: self.unmatched + other.unmatched,
            orphaned: self.orphaned + other.orphaned,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

/// A room's faults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FaultyRoom {
    /// As on the wire.
    pub(crate) room: String,
    #[serde(flatten)]
    pub(crate) faults: Faults,
}

impl FaultyRoom {
    /// Those that are named, worst first.
    pub(crate) fn worst(mut rooms: Vec<Self>) -> Vec<Self> {
        rooms.sort_by_key(|room| std::cmp::Reverse(room.faults.total()));
        rooms.truncate(MAX_FAULTY_ROOMS);
        rooms
    }
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

/// A [`Latency`] in short.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ShortLatency {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
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
