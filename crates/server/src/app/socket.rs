//! The handle to a connection that handlers use.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use roomcast_core::{Access, ConnectionId, Identity, RoomName, UserId};
use roomcast_protocol::CloseCode;

use crate::connection::context::ConnectionContext;
use crate::error::{CallError, NotifyError};
use crate::node::address::close_frame;
use crate::node::handle::Node;
use crate::payload::IntoPayload;

/// A handle to a client's connection. It is cheap to clone and to store. It does not keep the
/// connection open.
///
/// ```
/// use roomcast::{CallError, Socket};
///
/// async fn enter(socket: Socket) -> Result<(), CallError> {
///     socket.join("lobby").await?;
///     socket.notify("welcome", format!("you are {}", socket.id()))?;
///     Ok(())
/// }
/// # fn add(router: roomcast::Router) -> roomcast::Router { router.call("enter", enter) }
/// ```
#[derive(Clone)]
pub struct Socket {
    pub(crate) context: Arc<ConnectionContext>,
    pub(crate) node: Node,
}

impl Socket {
    /// Returns the connection's id, which is unique in the cluster.
    pub fn id(&self) -> ConnectionId {
        self.context.connection.id
    }

    /// Returns the connection's user, if the [upgrade](crate::SocketIoUpgrade::user) or the
    /// [authorizer](crate::Router::authorizer) set one.
    pub fn user(&self) -> Option<&UserId> {
        self.context.connection.user()
    }

    /// Returns who the client is and what it may do, if the router has an
    /// [authorizer](crate::Router::authorizer). A refresh replaces the identity.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.context.access().map(Access::identity)
    }

    /// Returns the client's address, if the server provides it. To provide it, serve your
    /// application with axum's `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.context.connection.peer_addr
    }

    /// Returns the value of this type that the [upgrade](crate::SocketIoUpgrade::with) attached to
    /// the connection.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.context.client.extensions.get()
    }

    /// Returns the request that opened the connection, if the upgrade [keeps it](crate::SocketIoUpgrade::keep_request).
    pub fn request(&self) -> Option<&Parts> {
        self.context.client.request()
    }

    /// Returns the node that serves the connection.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Queues an event for the client and returns without waiting.
    ///
    /// If the client's unread output exceeds
    /// [`Options::max_outbound`](crate::Options::max_outbound), the connection is closed with 4408.
    /// To send many events, wait for [`ready`](Self::ready) before each one.
    ///
    /// # Errors
    /// Returns [`NotifyError`] if the event was not queued: its name is too long, its payload
    /// cannot be serialized to JSON, the connection has ended, or the client reads too slowly.
    pub fn notify(&self, event: &str, payload: impl IntoPayload) -> Result<(), NotifyError> {
        self.context.notify(event, payload.into_payload()?)
    }

    /// Waits until the client's unread output is at most half of
    /// [`Options::max_outbound`](crate::Options::max_outbound), or until the connection ends.
    ///
    /// ```
    /// use roomcast::{NotifyError, Socket};
    ///
    /// async fn send_all(socket: Socket, chunks: Vec<String>) -> Result<(), NotifyError> {
    ///     for chunk in chunks {
    ///         socket.ready().await;
    ///         socket.notify("chunk", chunk)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn ready(&self) {
        poll_fn(|cx| self.context.connection.outbox.poll_ready(cx)).await;
    }

    /// Adds the connection to a room. When this returns, the connection receives every event published later.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid, `RESOURCE_EXHAUSTED` if the
    /// connection is in too many rooms, `UNAVAILABLE` if the node cannot subscribe to the room, and
    /// `CANCELLED` if the connection has ended.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the membership in place. [`leave`](Self::leave) ends it.
    pub async fn join(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        Ok(self.node.hub().local().join(&self.context.connection, &room).await?)
    }

    /// Like [`join`](Self::join), but does not fail or wait if the broker is down. The connection
    /// becomes a member at once, and receives the room's events as soon as the broker is up again.
    /// Use it in connect handlers, where an error or a delay would prevent the client from making
    /// calls.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid, `RESOURCE_EXHAUSTED` if the
    /// connection is in too many rooms, and `CANCELLED` if the connection has ended.
    ///
    /// # Cancel safety
    /// As for [`join`](Self::join).
    pub async fn join_eventually(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        Ok(self.node.hub().local().join_eventually(&self.context.connection, &room).await?)
    }

    /// Removes the connection from a room. When this returns, the client receives no further event
    /// of the room.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid.
    pub fn leave(&self, room: &str) -> Result<(), CallError> {
        let room = RoomName::new(room)?;
        self.node.hub().local().leave(&self.context.connection, &room);
        Ok(())
    }

    /// Returns the names of the rooms that the connection is in.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.context.connection.rooms()
    }

    /// Closes the connection with a code and a reason of at most 123 bytes. Use 1000 for a normal
    /// closure, or 3000 to 4999 for codes of your own. If the connection is already being closed,
    /// it keeps its first code.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if RFC 6455 forbids sending the code, or if the reason is too
    /// long.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), CallError> {
        self.context.connection.outbox.close(close_frame(code, reason)?);
        Ok(())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("id", &self.id()).field("user", &self.user()).finish_non_exhaustive()
    }
}
