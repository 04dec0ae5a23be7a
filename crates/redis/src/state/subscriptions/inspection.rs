//! Access to the state for tests.

use super::{Room, SessionIndex, Stage, Subscriptions};
use crate::state::session::ServerSession;

impl Subscriptions {
    /// Returns the offset that a room's reader waits for, or `None` if nothing has been read yet.
    pub(crate) fn reads_from(&self, room: &str) -> Option<u64> {
        self.rooms.get(room)?.reader.resume_from()
    }

    /// Returns the server to which a room is subscribed.
    pub(crate) fn subscribed_to(&self, room: &str) -> Option<SessionIndex> {
        match self.rooms.get(room) {
            Some(Room { stage: Stage::Subscribed { session }, .. }) => Some(*session),
            _ => None,
        }
    }

    /// Returns how many rooms are requested from each server.
    pub(crate) fn in_flight(&self) -> Vec<usize> {
        self.sessions.iter().map(ServerSession::in_flight).collect()
    }
}
