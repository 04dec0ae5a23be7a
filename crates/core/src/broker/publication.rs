//! Events that are published, before and after the broker has accepted them.

use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::Name;

use crate::id::{NodeId, RoomName};
use crate::trace::TraceContext;

/// A room event on its way to the broker. It has no call id, because a call and its cancellation
/// stay on the node that owns the connection.
///
/// A broker must carry all fields except two: `published_at` is meaningful only in the process that
/// set it, and without `trace`, deliveries on other nodes do not belong to the trace of the publish. The struct is exhaustive, so that if a field is added, a broker that does not carry
/// it no longer compiles.
///
/// ```
/// # use roomcast_core as roomcast;
/// use std::time::Instant;
/// use bytes::Bytes;
/// use roomcast::{NodeId, Position, Publish, RoomName, check_event};
///
/// let publish = Publish {
///     origin: NodeId::random(),
///     room: RoomName::new("lobby")?,
///     event: check_event("said")?,
///     payload: Bytes::from_static(b"hello"),
///     published_at: Instant::now(),
///     trace: None,
/// };
/// let publication = publish.accepted(Position { epoch: 1, offset: 7 });
/// assert_eq!((&*publication.room, publication.position.offset), ("lobby", 7));
/// # Ok::<(), roomcast::InvalidName>(())
/// ```
#[derive(Debug, Clone)]
pub struct Publish {
    /// The node that publishes the event.
    pub origin: NodeId,
    /// The room whose members receive the event.
    pub room: RoomName,
    /// The event's name.
    pub event: Name,
    /// The event's payload.
    pub payload: Bytes,
    /// When the application or a client published the event. Its delivery latency is measured from
    /// this time.
    pub published_at: Instant,
    /// The span of the publish, if its trace is sampled.
    pub trace: Option<Box<TraceContext>>,
}

/// A room event that the broker has accepted, on its way to members. It is exhaustive for the same
/// reason as [`Publish`]. The example there shows how to create one.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The node that published the event.
    pub origin: NodeId,
    /// The room whose members receive the event.
    pub room: RoomName,
    /// The event's name.
    pub event: Name,
    /// The event's payload.
    pub payload: Bytes,
    /// When the event was published, by the clock of this process. Its delivery latency is measured
    /// from this time.
    pub published_at: Instant,
    /// The span of the publish, if its trace is sampled.
    pub trace: Option<Box<TraceContext>>,
    /// The event's place in its room.
    pub position: Position,
}

/// A place in the order of a room's events. Positions of different epochs cannot be compared. A new
/// epoch begins when the broker has lost the room's last offset.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Position;
///
/// /// Returns whether events are missing between two consecutive events that a node received.
/// fn has_gap(last: Position, next: Position) -> bool {
///     last.epoch == next.epoch && next.offset != last.offset + 1
/// }
/// assert!(has_gap(Position { epoch: 1, offset: 7 }, Position { epoch: 1, offset: 9 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The history that the offset belongs to.
    pub epoch: u64,
    /// The event's number. Within an epoch, offsets increase by one with each event.
    pub offset: u64,
}

impl Position {
    /// The position of an event that has none, because the broker kept nothing of its room, and of a
    /// room that has never had an event.
    pub const NONE: Self = Self { epoch: 0, offset: 0 };

    /// Returns the epoch as the HTTP API shows it: the number in lower-case hexadecimal, or an empty
    /// text for epoch 0.
    pub fn epoch_text(&self) -> String {
        if self.epoch == 0 { String::new() } else { format!("{:x}", self.epoch) }
    }
}

impl Publish {
    /// Returns the event's size in bytes, as queues count it.
    pub fn size(&self) -> usize {
        size(&self.room, &self.event, &self.payload)
    }

    /// Turns the event into a publication at this position.
    pub fn accepted(self, position: Position) -> Publication {
        let Self { origin, room, event, payload, published_at, trace } = self;
        Publication { origin, room, event, payload, published_at, trace, position }
    }
}

impl Publication {
    /// Returns the event's size in bytes, as queues count it.
    pub fn size(&self) -> usize {
        size(&self.room, &self.event, &self.payload)
    }
}

fn size(room: &RoomName, event: &Name, payload: &Bytes) -> usize {
    room.len() + event.as_bytes().len() + payload.len()
}
