//! What a broker must do.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use roomcast_protocol::MAX_PAYLOAD;
use thiserror::Error;
use tokio::sync::watch;

use crate::broker::publication::{Publication, Publish};
use crate::id::RoomName;

/// A boxed future: it makes `dyn Broker` possible.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries room events between nodes.
///
/// What every implementation promises, and the contract suite checks:
///
/// * **One order.** All nodes get the events of one room in the same order: that in which the broker
///   accepted them. Nothing is promised between rooms.
/// * **Started when called.** `publish`, `subscribe` and `unsubscribe` take their place in the order at
///   the call, not when the future is polled; the future only returns the outcome. So one caller's
///   publishes keep their order without waiting for one another.
/// * **A confirmed subscription is effective**: every event accepted later is delivered.
/// * **Also to the publisher's own node**, by the same way as to all others.
/// * **At most once.** An event is never delivered twice.
/// * **Numbered.** All nodes see an event at the same [`Position`](crate::Position). Within an epoch, a room's offsets
///   grow by one.
/// * **Any room.** Names come as they are: those of clients' rooms, and those by which nodes reach one another, which
///   contain a `/`. Decode a name with [`RoomName::from_wire`].
/// * **Bounded.** Each queue holds at most [`MAX_WAITING_EVENTS`](crate::MAX_WAITING_EVENTS) events and
///   [`MAX_WAITING_BYTES`](crate::MAX_WAITING_BYTES), and may have a reserve for the messages between nodes
///   ([`RoomName::is_of_nodes`]). A publish that finds no place fails; it does not wait.
///
/// The guide "Write a broker" (`docs/guides/brokers.md`) explains how to keep these promises, with a whole broker as an
/// example and the test of the contract.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Publishes to a room, on all nodes. The payload has at most 64 MiB
    /// ([`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD)): the hub refuses a larger one.
    ///
    /// # Errors
    /// [`BrokerError`]. After [`Unavailable`](BrokerError::Unavailable) the event may have been accepted all the same.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw the event.
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Starts to receive a room's events on this node. For a room that is subscribed already, it changes nothing.
    ///
    /// # Errors
    /// [`BrokerError`]; the room is then not subscribed. The hub tries again while the broker is up.
    ///
    /// # Cancel safety
    /// Dropping the future does not end the subscription; [`unsubscribe`](Self::unsubscribe) does.
    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Stops to receive a room's events on this node. Events already under way may still come.
    fn unsubscribe(&self, room: &RoomName);

    /// Waits for publications and appends them, in order. Returns `false` if no more will come, because the broker was
    /// closed or has failed for good; the node must then end. Only one task calls this, the hub's.
    ///
    /// # Cancel safety
    /// Cancel safe: no publication is lost if the future is dropped.
    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool>;

    /// Whether the broker works, with all later changes.
    fn status(&self) -> watch::Receiver<BrokerStatus>;

    /// Ends the stream of events of this node, after those already accepted; later ones may or may not come.
    fn close(&self);
}

/// Hands an event to a broker. One whose payload is over [`MAX_PAYLOAD`] reaches no broker.
pub(crate) fn publish(broker: &dyn Broker, publish: Publish) -> BoxFuture<'static, Result<(), BrokerError>> {
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
    /// It takes publishes, and brings events, of most rooms at least.
    Up,
    /// It does not: publishes and subscriptions may fail with [`BrokerError::Unavailable`].
    Down,
}

/// Why an operation of the broker failed.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::BrokerError;
///
/// /// Whether the same publish may succeed later.
/// fn is_temporary(error: &BrokerError) -> bool {
///     matches!(error, BrokerError::Overloaded { .. } | BrokerError::Unavailable { .. })
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// As many events wait as a queue may hold.
    #[error("the queue for the broker is full ({waiting} events); try again later")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The payload is larger than the broker accepts, or than [`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD).
    #[error("the payload has {size} bytes; the broker accepts at most {max}")]
    TooLarge {
        /// The payload's size in bytes.
        size: usize,
        /// The largest in bytes.
        max: usize,
    },
    /// The backend does not respond, or refuses the operation.
    #[error("the broker is unavailable: {reason}")]
    Unavailable {
        /// What is wrong, for operators.
        reason: String,
    },
    /// The node shuts down.
    #[error("the node is shutting down")]
    Closed,
}
