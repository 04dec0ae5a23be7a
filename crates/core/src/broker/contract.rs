//! The contract that every broker fulfils.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use roomcast_protocol::MAX_PAYLOAD;
use thiserror::Error;
use tokio::sync::watch;

use crate::broker::ledger::{Exchange, LedgerPage, MAX_LEDGER_RECORDS};
use crate::broker::publication::{Position, Publication, Publish};
use crate::id::RoomName;

/// A boxed future, which makes `dyn Broker` possible.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries room events between nodes.
///
/// Every implementation makes these promises, and the contract suite checks them:
///
/// * **One order.** All nodes receive the events of a room in the same order, the order in which
///   the broker accepted them. The order between rooms is not defined.
/// * **Started when called.** `publish`, `subscribe` and `unsubscribe` take their place in the
///   order when they are called, not when their future is polled. The future only returns the
///   outcome. The publishes of one caller therefore keep their order even if it does not wait for
///   each of them.
/// * **A confirmed subscription is effective.** Every event accepted later is delivered.
/// * **The publisher's own node receives its events, too,** in the same way as all others.
/// * **At most once.** An event is never delivered twice.
/// * **Numbered.** All nodes see an event at the same [`Position`], which its publish returns. Within
///   an epoch, the offsets of a room increase by one with each event.
/// * **Any room.** The broker carries every room, whatever its name. Besides clients' rooms, there
///   are the rooms through which nodes reach each other, whose names contain a `/`. Decode a name
///   with [`RoomName::from_wire`].
/// * **Bounded.** Each queue holds at most [`MAX_WAITING_EVENTS`](crate::MAX_WAITING_EVENTS) events
///   and [`MAX_WAITING_BYTES`](crate::MAX_WAITING_BYTES). It may have a reserve for the messages
///   between nodes ([`RoomName::is_of_nodes`]). If a queue is full, a publish fails without
///   waiting.
///
/// The guide "Write a broker" (`docs/guides/brokers.md`) explains how to keep these promises. It
/// contains a complete broker, and the test that runs the contract suite.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Publishes an event to a room, on all nodes, and returns the position at which they see it.
    /// The payload is at most 64 MiB ([`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD)), because the
    /// node rejects a larger one.
    ///
    /// If no node is subscribed and the broker keeps nothing of the room, the event has no position,
    /// and this returns epoch 0 and offset 0. If the broker had to repeat the publish and no longer
    /// knows where the event is, it returns a later position of the room, never an earlier one.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the broker did not accept the event. After
    /// [`Unavailable`](BrokerError::Unavailable), the event may have been accepted nevertheless.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw the event.
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>>;

    /// Starts to receive a room's events on this node. If the node is already subscribed to the
    /// room, this changes nothing.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the subscription failed. The node tries again while the broker is
    /// up.
    ///
    /// # Cancel safety
    /// Dropping the future does not end the subscription; [`unsubscribe`](Self::unsubscribe) does.
    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Stops receiving a room's events on this node. Events that are already under way may still
    /// arrive.
    fn unsubscribe(&self, room: &RoomName);

    /// Returns how many rooms the broker holds in memory, if it keeps some after they were
    /// unsubscribed. The node limits this number. By default, this returns 0.
    fn room_count(&self) -> usize {
        0
    }

    /// Waits for publications and appends them in order. Returns `false` if no more will arrive
    /// because the broker was closed or has failed permanently; the node must then end. Only one
    /// task of the node calls this.
    ///
    /// # Cancel safety
    /// Cancel safe: no publication is lost if the future is dropped.
    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool>;

    /// Adds records to the ledger of the cluster, and reads the records after a position.
    ///
    /// The ledger contains revocations, which each node must get even if it was not running, or was
    /// cut off, when they were added. Each node calls this twice a second. The broker keeps each
    /// record until its time, also if no node is running. It may keep it longer.
    ///
    /// By default, this fails with [`Unsupported`](BrokerError::Unsupported). Nodes then have no
    /// revocations.
    ///
    /// # Errors
    /// Returns [`LedgerFull`](BrokerError::LedgerFull) if the ledger has
    /// [`MAX_LEDGER_RECORDS`](crate::MAX_LEDGER_RECORDS), not counting repeated ones, and adds
    /// nothing. After
    /// [`Unavailable`](BrokerError::Unavailable), the records may have been added nevertheless.
    ///
    /// # Cancel safety
    /// If you drop the future, the records may or may not be added.
    fn exchange(&self, _exchange: Exchange) -> BoxFuture<'static, Result<LedgerPage, BrokerError>> {
        Box::pin(ready(Err(BrokerError::Unsupported { operation: "the ledger" })))
    }

    /// Returns a receiver for the broker's status. It has the current status and receives every
    /// change.
    fn status(&self) -> watch::Receiver<BrokerStatus>;

    /// Ends this node's stream of events after the events that were already accepted. Later events
    /// may or may not arrive.
    fn close(&self);
}

/// Passes an event to a broker. Events with a payload over [`MAX_PAYLOAD`] are rejected before they
/// reach it.
pub(crate) fn publish(broker: &dyn Broker, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
    match publish.payload.len() {
        size if size > MAX_PAYLOAD => Box::pin(ready(Err(BrokerError::TooLarge { size, max: MAX_PAYLOAD }))),
        _ => broker.publish(publish),
    }
}

/// Whether a broker works.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Broker, BrokerStatus, MemoryBroker};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::single();
/// let mut status = broker.status();
/// status.wait_for(|status| *status == BrokerStatus::Up).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerStatus {
    /// The broker accepts publishes and delivers events, for most rooms at least.
    Up,
    /// The broker does not work. Publishes and subscriptions may fail with
    /// [`BrokerError::Unavailable`].
    Down,
}

/// Why an operation of the broker failed.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::BrokerError;
///
/// /// Returns whether the same publish may succeed later.
/// fn is_temporary(error: &BrokerError) -> bool {
///     matches!(error, BrokerError::Overloaded { .. } | BrokerError::Unavailable { .. })
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The queue is full.
    #[error("the queue for the broker is full ({waiting} events); try again later")]
    Overloaded {
        /// How many events are waiting.
        waiting: usize,
    },
    /// The payload is larger than the broker accepts, or larger than
    /// [`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD).
    #[error("the payload has {size} bytes; the broker accepts at most {max}")]
    TooLarge {
        /// The payload's size in bytes.
        size: usize,
        /// The maximum, in bytes.
        max: usize,
    },
    /// The backend does not respond, or it rejects the operation.
    #[error("the broker is unavailable: {reason}")]
    Unavailable {
        /// The problem, described for operators.
        reason: String,
    },
    /// The ledger accepts no more records.
    #[error("the broker keeps {MAX_LEDGER_RECORDS} revocations, which is the limit; wait until some of them end")]
    LedgerFull,
    /// The broker does not have this operation.
    #[error("the broker does not support {operation}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
    /// The broker is closed, because its node is shutting down.
    #[error("the node is shutting down")]
    Closed,
}
