//! An event to publish, and the publication that it becomes.

use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::Name;

use crate::id::{NodeId, RoomName};

/// A room event on its way to the broker. It has no call id: a call, and its cancellation, stay on the node that owns
/// the connection.
///
/// Every broker must carry all fields but `published_at`, which is a time of this process. So the struct is exhaustive:
/// a field that is added here is a compile error in a broker that drops it.
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
/// };
/// let publication = publish.accepted(Position { epoch: 1, offset: 7 });
/// assert_eq!((&*publication.room, publication.position.offset), ("lobby", 7));
/// # Ok::<(), roomcast::InvalidName>(())
/// ```
#[derive(Debug, Clone)]
pub struct Publish {
    /// The node that published the event.
    pub origin: NodeId,
    /// The room whose members get it.
    pub room: RoomName,
    /// The event's name.
    pub event: Name,
    /// The event's bytes.
    pub payload: Bytes,
    /// When the application or a client published it: the start of its delivery latency.
    pub published_at: Instant,
}

/// A room event that the broker has accepted, on its way to the members. Exhaustive for the same reason as [`Publish`],
/// whose example shows how one is made.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The node that published the event.
    pub origin: NodeId,
    /// The room whose members get it.
    pub room: RoomName,
    /// The event's name.
    pub event: Name,
    /// The event's bytes.
    pub payload: Bytes,
    /// When it was published, by this process' clock: the start of its delivery latency.
    pub published_at: Instant,
    /// The event's place in its room.
    pub position: Position,
}

/// A place in the order of a room's events. Positions of different epochs can't be compared: a new epoch begins when
/// the broker has lost the room's last offset.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Position;
///
/// /// Whether events are missing between two that a node received one after the other.
/// fn has_gap(last: Position, next: Position) -> bool {
///     last.epoch == next.epoch && next.offset != last.offset + 1
/// }
/// assert!(has_gap(Position { epoch: 1, offset: 7 }, Position { epoch: 1, offset: 9 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which numbering of the room's events the offset belongs to.
    pub epoch: u64,
    /// The event's number. Offsets of one epoch grow, by one for each event.
    pub offset: u64,
}

impl Publish {
    /// The event's size in bytes, as queues count it.
    pub fn size(&self) -> usize {
        size(&self.room, &self.event, &self.payload)
    }

    /// The publication that it becomes at this position.
    pub fn accepted(self, position: Position) -> Publication {
        let Self { origin, room, event, payload, published_at } = self;
        Publication { origin, room, event, payload, published_at, position }
    }
}

impl Publication {
    /// The event's size in bytes, as queues count it.
    pub fn size(&self) -> usize {
        size(&self.room, &self.event, &self.payload)
    }
}

fn size(room: &RoomName, event: &Name, payload: &Bytes) -> usize {
    room.len() + event.as_bytes().len() + payload.len()
}
