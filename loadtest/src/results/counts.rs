//! How often what happened: counts, faults, and errors by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most rooms that are named for their faults.
const MAX_FAULTY_ROOMS: usize = 100;

/// Errors are counted under at most so many names, then under [`OTHER`].
const MAX_NAMES: usize = 100;
const OTHER: &str = "other";

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

/// Counts by name, with a bound on the names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CountsByName(pub(crate) BTreeMap<String, u64>);

impl CountsByName {
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
