//! What a store of lifecycle events does.

use std::fmt;
use std::time::Duration;

use crate::broker::contract::{BoxFuture, BrokerError};
use crate::events::event::{EventContent, LifecycleEvent};
use crate::id::NodeId;

/// The largest number of records in a report.
pub const MAX_REPORTED: usize = 500;

/// The largest number of events in a batch.
pub const MAX_BATCH_EVENTS: usize = 100;

/// The largest number of dead events. Beyond it, the store drops the oldest one.
pub const MAX_DEAD_EVENTS: usize = 10_000;

/// The rules of a store. All nodes of a cluster must have the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventRules {
    /// How many events may wait for delivery. Further events are dead at once.
    pub max_waiting: usize,
    /// How long after its last report a node counts as lost. Default 10 s.
    pub lost_after: Duration,
    /// How long `left` and `vacated` wait for a client to return. Default 3 s.
    pub return_time: Duration,
    /// After this long without a report of any node, the store itself was unreachable, and no node
    /// counts as lost because of this time. Default 3 s.
    pub outage_after: Duration,
}

impl Default for EventRules {
    fn default() -> Self {
        Self {
            max_waiting: 1_000_000,
            lost_after: Duration::from_secs(10),
            return_time: Duration::from_secs(3),
            outage_after: Duration::from_secs(3),
        }
    }
}

/// A change on a node. A store applies each number of a node once, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The record's number, which grows with each record of the node.
    pub number: u64,
    /// When the change happened, in milliseconds since 1970.
    pub time: u64,
    /// What begins or ends. It identifies a connection, a membership or the use of a room on its
    /// node.
    pub key: String,
    /// The group of what begins or ends, such as the connections of one user in one room. Only the
    /// beginning of the first one of a group, and the end of the last one, are events. The end is
    /// an event only if none begins again within [`EventRules::return_time`]. `None` if each
    /// beginning and each end is an event.
    pub group: Option<String>,
    /// What happens.
    pub change: Change,
}

/// What a record reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something begins.
    Begin {
        /// The event, if there is one.
        event: Option<Draft>,
        /// The event of its end, in case that the node dies.
        end: Option<Draft>,
    },
    /// Something ends.
    End {
        /// The event, if there is one.
        event: Option<Draft>,
    },
}

/// An event whose time depends on when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The event's id.
    pub id: String,
    /// What happens.
    pub content: EventContent,
}

impl Draft {
    /// Returns the event at a time, in milliseconds since 1970.
    pub fn at(self, time: u64) -> LifecycleEvent {
        LifecycleEvent::new(self.id, time, self.content)
    }
}

/// A report of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Whether the node has received that it was lost, and is back.
    pub is_back: bool,
    /// The number of the last record that the store had applied when it replied last. If it has lost
    /// this record, it applies none, so that the node can send it again.
    pub applied: u64,
    /// The records after it. At most [`MAX_REPORTED`].
    pub records: Vec<Record>,
    /// A node that may be lost. If it is, the store reports the end of up to [`MAX_REPORTED`] things
    /// that the node has not ended.
    pub lost: Option<NodeId>,
}

/// The reply to a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reported {
    /// The number of the last record of the node that the store has applied. If it is lower than
    /// before, the store has lost data.
    pub applied: u64,
    /// The number of the last record of the node whose event was delivered.
    pub delivered: u64,
    /// Whether the node counts as lost. The store has then not applied the records, and the end of
    /// everything that the node had begun is reported.
    pub is_lost: bool,
    /// A node that is lost, or one whose end is not reported completely.
    pub lost: Option<NodeId>,
    /// How many ends of the lost node the store has reported.
    pub ended: u64,
    /// What the store holds.
    pub held: Held,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Held {
    /// How many events wait for delivery.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    pub lag: Duration,
    /// How many events are dead.
    pub dead: u64,
    /// How many events were dead at once, because too many were waiting.
    pub overflowed: u64,
}

impl Held {
    /// Creates a value.
    pub fn new(waiting: u64, lag: Duration, dead: u64, overflowed: u64) -> Self {
        Self { waiting, lag, dead, overflowed }
    }
}

/// A request for the events to deliver. Only one node at a time gets them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Take {
    /// The node.
    pub node: NodeId,
    /// How long no other node gets events. Zero lets another node get them at once.
    pub lease: Duration,
    /// The events that the backend has accepted, which the store removes.
    pub accepted: Vec<Accepted>,
    /// The largest number of events to return. At most [`MAX_BATCH_EVENTS`].
    pub limit: usize,
    /// How long an event may wait before it is dead.
    pub max_age: Duration,
}

/// An event that the backend has accepted. After the store has lost data, another event may have its
/// place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The event's place among those that wait.
    pub place: String,
    /// The event's id.
    pub id: String,
}

/// An event that waits for delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingEvent {
    /// The event's place among those that wait.
    pub place: String,
    /// The event.
    pub event: LifecycleEvent,
}

impl WaitingEvent {
    /// Creates a waiting event.
    pub fn new(place: String, event: LifecycleEvent) -> Self {
        Self { place, event }
    }

    /// Returns the event as one that the backend has accepted.
    pub(crate) fn accepted(self) -> Accepted {
        Accepted { place: self.place, id: self.event.id }
    }
}

/// Keeps the lifecycle events of a cluster until a backend has accepted them.
pub trait EventStore: Send + Sync + fmt::Debug + 'static {
    /// Applies a node's records. A report without records shows that the node is alive.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the store does not respond. It may have applied the records
    /// nevertheless.
    ///
    /// # Cancel safety
    /// If you drop the future, the records may or may not be applied. Report them again.
    fn report(&self, report: Report) -> BoxFuture<'static, Result<Reported, BrokerError>>;

    /// Returns the events to deliver next. Returns `None` if another node delivers them.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the store does not respond.
    ///
    /// # Cancel safety
    /// If you drop the future, accepted events may or may not be removed.
    fn take(&self, take: Take) -> BoxFuture<'static, Result<Option<Vec<WaitingEvent>>, BrokerError>>;

    /// Returns the oldest dead events, at most `limit`.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the store does not respond.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    fn dead(&self, limit: usize) -> BoxFuture<'static, Result<Vec<LifecycleEvent>, BrokerError>>;

    /// Makes dead events wait for delivery again, the oldest first, as far as there is space. Returns
    /// how many. They wait behind all others, so they are no longer in order.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the store does not respond.
    ///
    /// # Cancel safety
    /// If you drop the future, the events may or may not wait again.
    fn replay(&self) -> BoxFuture<'static, Result<usize, BrokerError>>;
}

/// Delivers events to a backend.
pub trait EventSink: Send + Sync + fmt::Debug + 'static {
    /// Delivers a batch. Returns once the backend has accepted it.
    ///
    /// # Errors
    /// Returns the reason, without secrets, if the backend has not accepted the batch. The batch is
    /// then delivered again.
    ///
    /// # Cancel safety
    /// If you drop the future, the backend may have accepted the batch.
    fn deliver(&self, batch: crate::events::event::EventBatch) -> BoxFuture<'static, Result<(), String>>;
}
