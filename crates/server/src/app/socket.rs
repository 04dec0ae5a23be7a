//! A connection, as the handlers of a router see it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::{ConnectionId, RoomName, UserId};
use roomcast_protocol::{CloseCode, CloseFrame};

use crate::connection::context::ConnectionContext;
use crate::connection::notifier::Notifier;
use crate::error::{CallError, NotifyError};
use crate::node::handle::Node;

/// A client's connection. Cheap to clone; does not keep it open.
#[derive(Debug, Clone)]
pub struct Socket {
    pub(crate) context: Arc<ConnectionContext>,
    pub(crate) node: Node,
}

impl Socket {
    /// The connection's id, unique in the cluster.
    pub fn id(&self) -> ConnectionId {
        self.context.peer.id
    }

    /// Whose connection it is, if the upgrade said so.
    pub fn user(&self) -> Option<&UserId> {
        self.context.peer.user.as_ref()
    }

    /// The client's address, if the server was made to tell it (axum's
    /// `into_make_service_with_connect_info::<SocketAddr>()`).
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.context.peer_addr
    }

    /// Data that the connection was given at its [upgrade](crate::SocketIoUpgrade::with).
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.context.extensions.get()
    }

    /// The node that serves it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Sends an event to the client. Queues and does not wait: a client that lets more than
    /// [`Options::max_outbound`](crate::Options::max_outbound) bytes wait is closed with 4408.
    ///
    /// # Errors
    /// [`NotifyError`] if the name is too long or the connection is known to have ended.
    pub fn notify(&self, event: &str, payload: impl Into<Bytes>) -> Result<(), NotifyError> {
        self.context.notify(event, payload.into())
    }

    /// Something to send events by, that others can keep.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.context))
    }

    /// Makes the connection a member of a room: when this returns, every event published later reaches it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the name, `RESOURCE_EXHAUSTED` for too many rooms, `UNAVAILABLE` if the room
    /// can't be subscribed to.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the membership in place; [`leave`](Self::leave) ends it.
    pub async fn join(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        Ok(self.node.hub().local().join(&self.context.peer, &room).await?)
    }

    /// Like [`join`](Self::join), but a broker outage neither fails nor delays it: the connection becomes a member at
    /// once, and gets the room's events once the broker is back. Meant for connect handlers, where an error or a delay
    /// would keep the client from making calls.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the name is invalid, `RESOURCE_EXHAUSTED` if the connection is in too many rooms.
    ///
    /// # Cancel safety
    /// As [`join`](Self::join).
    pub async fn join_eventually(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        Ok(self.node.hub().local().join_eventually(&self.context.peer, &room).await?)
    }

    /// Ends a membership: when this returns, no event of the room is sent to the client any more.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the name.
    pub fn leave(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        self.node.hub().local().leave(&self.context.peer, &room);
        Ok(())
    }

    /// The names of the rooms that the connection is in.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.context.peer.rooms()
    }

    /// Closes the connection, with a code (1000, or 3000 to 4999 for the application's own) and a sentence.
    /// A code that RFC 6455 forbids to send becomes 1000.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        let code = if code.is_valid_on_the_wire() { code } else { CloseCode::NORMAL };
        self.context.peer.outbox.close(CloseFrame::new(code, reason));
    }
}
