//! Whom an application can reach from any node: a room, a user, a connection.

use std::sync::Arc;

use roomcast_core::{ConnectionId, Hub, Members, Reached, RoomName, UserId, check_event};
use roomcast_protocol::{CloseCode, CloseFrame, Name};

use crate::error::{CallError, Code};
use crate::payload::IntoPayload;

/// The longest reason that fits into a Close frame, in bytes.
const MAX_CLOSE_REASON: usize = 123;

/// A handle to a room of the cluster: see [`Node::room`](crate::Node::room).
///
/// ```
/// use axum::Json;
/// use roomcast::{CallError, Node};
///
/// async fn announce(node: &Node) -> Result<usize, CallError> {
///     let lobby = node.room("lobby");
///     lobby.publish("price", Json(serde_json::json!({ "cup": 4.2 }))).await?;
///     Ok(lobby.members().await?.count)
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) name: &'a str,
}

impl Room<'_> {
    /// Sends an event to all members, on all nodes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the room's or event's name or a payload over 64 MiB, `UNAVAILABLE` if the broker did not
    /// take it.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not withdraw the event.
    pub async fn publish(&self, event: &str, payload: impl IntoPayload) -> Result<(), CallError> {
        let (room, event) = (RoomName::new(self.name)?, check_event(event)?);
        Ok(self.hub.publish(room, event, payload.into_payload()?).await?)
    }

    /// Lists the room's members, on all nodes.
    ///
    /// This sends a request to every live node. The result names the nodes that do not respond within 2 s; their
    /// members are missing from it. Calls for the same room that arrive meanwhile wait and share the next result.
    ///
    /// A node that has just started misses the members on nodes [that it has no heartbeat of](crate::Node::new) yet,
    /// and does not list these nodes as unresponsive.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the room's name, `UNAVAILABLE` if the other nodes can't be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: this only reads.
    pub async fn members(&self) -> Result<Arc<Members>, CallError> {
        Ok(self.hub.cluster().members(&RoomName::new(self.name)?).await?)
    }
}

/// A handle to a user of the cluster, with all their connections: see [`Node::user`](crate::Node::user).
///
/// ```
/// use roomcast::{CallError, CloseCode, Code, Node};
///
/// async fn log_out(node: &Node) -> Result<(), CallError> {
///     node.user("ann").publish("notice", "you log out").await?;
///     match node.user("ann").disconnect(CloseCode::DISCONNECTED, "logged out").await {
///         Err(error) if error.code == Code::NotFound => Ok(()),
///         result => result.map(|_| ()),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) id: &'a str,
}

impl User<'_> {
    /// Sends an event to all connections of the user, on all nodes, and returns for how many it was queued. It sends a
    /// request to all nodes: [`publish`](Self::publish) costs less.
    ///
    /// A node that has just started counts only the connections on nodes [that it has a heartbeat of](crate::Node::new).
    /// On the others, the event may be queued although the result is `NOT_FOUND`. `publish` reaches them all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the user's id, the event's name or a payload over 64 MiB, `NOT_FOUND` if the user has no
    /// connection, `UNAVAILABLE` if the other nodes can't be reached, `DEADLINE_EXCEEDED` if no connection was found and
    /// some nodes did not respond.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn notify(&self, event: &str, payload: impl IntoPayload) -> Result<Reached, CallError> {
        let (user, event) = (UserId::new(self.id)?, event_name(event)?);
        Ok(self.hub.cluster().notify_user(&user, event, payload.into_payload()?).await?)
    }

    /// Sends an event to all connections of the user, on all nodes, by one message to the nodes that have any. It
    /// also succeeds if there are none.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the user's id, the event's name or a payload over 64 MiB, `UNAVAILABLE` if the broker did
    /// not take it.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn publish(&self, event: &str, payload: impl IntoPayload) -> Result<(), CallError> {
        let (user, event) = (UserId::new(self.id)?, event_name(event)?);
        Ok(self.hub.publish_to_user(&user, event, payload.into_payload()?).await?)
    }

    /// Closes all connections of the user, on all nodes, and returns how many.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the user's id, the code or the reason; otherwise as [`notify`](Self::notify).
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn disconnect(&self, code: CloseCode, reason: &str) -> Result<Reached, CallError> {
        let (user, close) = (UserId::new(self.id)?, close_frame(code, reason)?);
        Ok(self.hub.cluster().close_user(&user, close).await?)
    }
}

/// A handle to a connection of the cluster, on any node.
///
/// Operations fail with `NOT_FOUND` if the connection does not exist or is being closed; nothing was done. They fail
/// with `DEADLINE_EXCEEDED` if its node did not respond in time; the operation may have been carried out, but will not
/// be later. While the broker is down, operations on connections of other nodes fail with `UNAVAILABLE`; those on
/// connections of this node work.
///
/// ```
/// use roomcast::{CallError, ConnectionId, Node};
///
/// async fn seat(node: &Node, id: ConnectionId) -> Result<(), CallError> {
///     node.connection(id).join("table-4").await?;
///     node.connection(id).notify("seated", "table 4").await
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) id: ConnectionId,
}

impl Connection<'_> {
    /// Sends an event to the connection. When this returns, the event is queued on its node.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the event's name, or for a payload over 64 MiB to another node; and see [`Connection`].
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn notify(&self, event: &str, payload: impl IntoPayload) -> Result<(), CallError> {
        Ok(self.hub.cluster().notify_connection(self.id, event_name(event)?, payload.into_payload()?).await?)
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the code or the reason; and see [`Connection`].
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), CallError> {
        Ok(self.hub.cluster().close_connection(self.id, close_frame(code, reason)?).await?)
    }

    /// Adds the connection to a room. When this returns, the connection receives every event published later.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the name, `RESOURCE_EXHAUSTED` if it is in too many rooms; and see
    /// [`Connection`].
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn join(&self, room: &str) -> Result<(), CallError> {
        Ok(self.hub.cluster().join_connection(self.id, &RoomName::new(room)?).await?)
    }

    /// Removes the connection from a room. When this returns, no further event of the room is sent to it. It is not an
    /// error if the connection was not a member.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the name; and see [`Connection`].
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not undo the operation, which may still be carried out.
    pub async fn leave(&self, room: &str) -> Result<(), CallError> {
        Ok(self.hub.cluster().leave_connection(self.id, &RoomName::new(room)?).await?)
    }
}

fn event_name(event: &str) -> Result<Name, CallError> {
    Name::new(event).map_err(|error| CallError::new(Code::InvalidArgument, error.to_string()))
}

pub(crate) fn close_frame(code: CloseCode, reason: &str) -> Result<CloseFrame, CallError> {
    if !code.is_valid_on_the_wire() {
        return Err(CallError::invalid_argument(format!(
            "the close code {code} must not be sent; use 1000 to 1003, 1007 to 1014, or 3000 to 4999"
        )));
    }
    if reason.len() > MAX_CLOSE_REASON {
        let len = reason.len();
        return Err(CallError::invalid_argument(format!(
            "a close reason has at most {MAX_CLOSE_REASON} bytes, this one has {len}"
        )));
    }
    Ok(CloseFrame::new(code, reason))
}
