//! Which lifecycle events of this node's connections are recorded.
//!
//! Each function holds the lock of the connection's rooms, so that events are recorded in the order
//! in which things happen. Without lifecycle events, each costs one atomic load.

use crate::events::recorder::Ending;
use crate::events::reporter::Events;
use crate::id::RoomName;
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;

/// How a connection ended whose task has not reported its end.
const LOST: (&str, u16) = ("lost", 1006);

impl LocalNode {
    /// Returns the node's lifecycle events, if it reports any.
    pub fn events(&self) -> Option<&Events> {
        self.events.get()
    }

    /// Records that a connection has opened, and the rooms that it has joined already. Does nothing
    /// if the connection has ended.
    pub fn report_connected(&self, connection: &LocalConnection) {
        let Some(events) = self.events() else { return };
        let rooms = connection.rooms.lock();
        let Some(rooms) = rooms.as_ref() else { return };
        events.connected(connection.id, connection.user());
        for membership in rooms.iter().filter(|membership| !membership.room.is_internal()) {
            events.joined(connection.id, &membership.room);
        }
    }

    /// Records that a connection has left its rooms permanently, and has ended.
    pub fn report_disconnected(&self, connection: &LocalConnection, ending: &Ending) {
        if let Some(events) = self.events() {
            events.disconnected(connection.id, ending);
        }
    }

    /// Records the end of a connection whose task has not reported it.
    pub(crate) fn report_lost(&self, connection: &LocalConnection) {
        let (cause, code) = LOST;
        self.report_disconnected(connection, &Ending::new(cause, code));
    }

    /// Records that a connection has joined a room, if it is still in the room.
    pub(crate) fn report_joined(&self, connection: &LocalConnection, room: &RoomName) {
        let Some(events) = self.events().filter(|_| !room.is_internal()) else { return };
        let rooms = connection.rooms.lock();
        if rooms.iter().flatten().any(|membership| membership.room == *room) {
            events.joined(connection.id, room);
        }
    }

    /// Logs and records that a connection has left a room. The caller holds the lock of its rooms.
    pub(crate) fn report_left(&self, connection: &LocalConnection, room: &RoomName) {
        connection.log_left(room);
        if let Some(events) = self.events().filter(|_| !room.is_internal()) {
            events.left(connection.id, room);
        }
    }
}
