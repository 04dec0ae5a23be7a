//! What tests look at.

use super::{Room, ShardIndex, Stage, Subscriptions};
use crate::shard::Shard;

impl Subscriptions {
    /// The number that a room's reader waits for. `None`: nothing was read yet.
    pub(crate) fn reads_from(&self, room: &str) -> Option<u64> {
        self.rooms.get(room)?.reader.resume_from()
    }

    /// Where a room is subscribed.
    pub(crate) fn subscribed_to(&self, room: &str) -> Option<ShardIndex> {
        match self.rooms.get(room) {
            Some(Room { stage: Stage::Subscribed { shard }, .. }) => Some(*shard),
            _ => None,
        }
    }

    /// How many rooms each server is asked about.
    pub(crate) fn in_flight(&self) -> Vec<usize> {
        self.shards.iter().map(Shard::in_flight).collect()
    }
}
