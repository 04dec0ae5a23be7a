//! What travels between nodes.

use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::Name;

use crate::id::{NodeId, RoomName};

/// One room event on its way from a publisher to all members. It has no call id: a call, and its
/// cancellation, stay on the node that owns the connection.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The node that accepted it.
    pub origin: NodeId,
    /// Whom it is for.
    pub room: RoomName,
    /// What the members get as a Notify's name.
    pub event: Name,
    /// What the members get as its payload.
    pub payload: Bytes,
    /// When the hub of this process accepted it: the start of its delivery latency.
    pub accepted_at: Instant,
}

impl Envelope {
    /// The size that bounds count it with, in bytes.
    pub fn size(&self) -> usize {
        self.room.len() + self.event.as_bytes().len() + self.payload.len()
    }
}
