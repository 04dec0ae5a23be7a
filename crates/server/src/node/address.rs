//! What an application can address from any node: a room, a user or a connection.

use std::sync::Arc;

use roomcast_core::{
    ConnectionDetails, ConnectionId, Hub, MAX_PATTERNS, Members, Position, Reached, RoomName, Rule, UserId, check_event,
};
use roomcast_protocol::{CloseCode, CloseFrame, Name};

use crate::error::{CallError, Code};
use crate::payload::IntoPayload;
use crate::published::{Published, Publisher};

/// The longest reason that fits into a Close frame, in bytes.
const MAX_CLOSE_REASON: usize = 123;

/// A handle to a room of the cluster, which [`Node::room`](crate::Node::room) returns.
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
    /// Publishes an event to all members of the room, on all nodes, and returns the event's position
    /// in the room.
    ///
    /// With Redis, the position is at or after the event if Redis did not reply in time and the
    /// room's history does not contain the event. With the embedded broker, an event without members
    /// has the position [`Position::NONE`].
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the name of the room or event is invalid or the payload is
    /// over 64 MiB, and `UNAVAILABLE` if the broker did not accept the event.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not withdraw the event.
    pub async fn publish(&self, event: &str, payload: impl IntoPayload) -> Result<Position, CallError> {
        let (room, event) = (RoomName::new(self.name)?, check_event(event)?);
        let payload = payload.into_payload()?;
        let published = Published::new(&Publisher::Server, &room, &event, payload.len());
        let result = self.hub.publish(room, event, payload).await;
        if let Some(published) = published {
            published.log(&result);
        }
        Ok(result?)
    }

    /// Lists the room's members, on all nodes.
    ///
    /// This sends a request to every live node. The result lists the nodes that do not respond
    /// within 2 s, and lacks their members. If a request for the same room is already in flight,
    /// this call waits for it, and then shares the next request with the other calls that wait.
    ///
    /// A node that has just started does not list members on nodes [whose heartbeat has not
    /// arrived](crate::Node::new) yet, and does not list these nodes as unresponsive.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid, and `UNAVAILABLE` if the other
    /// nodes cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn members(&self) -> Result<Arc<Members>, CallError> {
        Ok(self.hub.cluster().members(&RoomName::new(self.name)?).await?)
    }
}

/// A handle to a user of the cluster and all the user's connections, which
/// [`Node::user`](crate::Node::user) returns.
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
    /// Sends an event to all connections of the user, on all nodes, and returns for how many of
    /// them it was queued. This sends a request to all nodes. [`publish`](Self::publish) costs
    /// less.
    ///
    /// A node that has just started does not count connections on nodes [whose heartbeat has not
    /// arrived](crate::Node::new) yet. The event may be queued there although the result is
    /// `NOT_FOUND`. `publish` reaches all nodes even then.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the user's id or the event's name is invalid or the payload
    /// is over 64 MiB, `NOT_FOUND` if the user has no connection, `UNAVAILABLE` if the other nodes
    /// cannot be reached, and `DEADLINE_EXCEEDED` if no connection was found and some nodes did not
    /// respond.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn notify(&self, event: &str, payload: impl IntoPayload) -> Result<Reached, CallError> {
        let (user, event) = (UserId::new(self.id)?, event_name(event)?);
        Ok(self.hub.cluster().notify_user(&user, event, payload.into_payload()?).await?)
    }

    /// Publishes an event to all connections of the user, on all nodes. This sends one message to
    /// the nodes that have any, and succeeds even if there are none.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the user's id or the event's name is invalid or the payload
    /// is over 64 MiB, and `UNAVAILABLE` if the broker did not accept the event.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll does not withdraw the event.
    pub async fn publish(&self, event: &str, payload: impl IntoPayload) -> Result<(), CallError> {
        let (user, event) = (UserId::new(self.id)?, event_name(event)?);
        Ok(self.hub.publish_to_user(&user, event, payload.into_payload()?).await?)
    }

    /// Closes all connections of the user, on all nodes, and returns how many were closed.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the user's id, the code or the reason is invalid, and
    /// otherwise like [`notify`](Self::notify).
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn disconnect(&self, code: CloseCode, reason: &str) -> Result<Reached, CallError> {
        let (user, close) = (UserId::new(self.id)?, close_frame(code, reason)?);
        Ok(self.hub.cluster().close_user(&user, close).await?)
    }
}

impl User<'_> {
    /// Replaces the grants that were added to those of the user's open connections, on all nodes,
    /// and returns for how many. The connections leave the rooms that they have lost the right to
    /// be in, and their clients get `auth/left` for each. Added grants last until the connection
    /// ends, also if the client refreshes its credential. In the rules, `{claim.PATH}` has no value.
    ///
    /// ```
    /// use roomcast::{CallError, Code, Node, Rule};
    ///
    /// async fn invite(node: &Node, user: &str, team: &str) -> Result<(), CallError> {
    ///     let rules = serde_json::json!([{ "rooms": [format!("team:{team}:**")], "do": ["join", "publish"] }]);
    ///     let rules: Vec<Rule> = serde_json::from_value(rules)
    ///         .map_err(|error| CallError::new(Code::InvalidArgument, error.to_string()))?;
    ///     node.user(user).set_grants(rules).await.map(|_| ())
    /// }
    /// ```
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the user's id is invalid or there are more than
    /// [`MAX_PATTERNS`](crate::MAX_PATTERNS) rules, and otherwise like [`notify`](Self::notify).
    /// Connections of routers without an [authorizer](crate::Router::authorizer) are not found.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn set_grants(&self, rules: Vec<Rule>) -> Result<Reached, CallError> {
        if rules.len() > MAX_PATTERNS {
            let message = format!("a user has at most {MAX_PATTERNS} added rules, not {}", rules.len());
            return Err(CallError::invalid_argument(message));
        }
        Ok(self.hub.cluster().set_grants(&UserId::new(self.id)?, rules).await?)
    }
}

/// A handle to a connection of the cluster, on any node.
/// [`Node::connection`](crate::Node::connection) returns it.
///
/// All operations can fail with these errors:
///
/// * `NOT_FOUND`: the connection does not exist or is being closed. The operation was not carried
///   out.
/// * `DEADLINE_EXCEEDED`: the connection's node did not respond in time. The operation may have
///   been carried out, but will not be carried out later.
/// * `UNAVAILABLE`: the connection is on another node, and the broker is down. While the broker is
///   down, operations on connections of this node still work.
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
    /// Describes the connection: its client, its rooms, and what the client may do.
    ///
    /// # Errors
    /// Fails with the errors that [`Connection`] lists.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn describe(&self) -> Result<ConnectionDetails, CallError> {
        Ok(self.hub.cluster().describe_connection(self.id).await?)
    }

    /// Sends an event to the connection. When this returns, the event is queued on its node.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the event's name is invalid, or if the payload is over 64
    /// MiB and the connection is on another node. It can also fail with the errors that
    /// [`Connection`] lists.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn notify(&self, event: &str, payload: impl IntoPayload) -> Result<(), CallError> {
        Ok(self.hub.cluster().notify_connection(self.id, event_name(event)?, payload.into_payload()?).await?)
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the code or the reason is invalid, and with the errors that
    /// [`Connection`] lists.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), CallError> {
        Ok(self.hub.cluster().close_connection(self.id, close_frame(code, reason)?).await?)
    }

    /// Adds the connection to a room. When this returns, the connection receives every event published later.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid, `RESOURCE_EXHAUSTED` if the
    /// connection is in too many rooms, and with the errors that [`Connection`] lists.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
    pub async fn join(&self, room: &str) -> Result<(), CallError> {
        Ok(self.hub.cluster().join_connection(self.id, &RoomName::new(room)?).await?)
    }

    /// Removes the connection from a room. When this returns, the client receives no further event
    /// of the room. This succeeds even if the connection was not a member.
    ///
    /// # Errors
    /// Fails with `INVALID_ARGUMENT` if the room's name is invalid, and with the errors that
    /// [`Connection`] lists.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the operation may still be carried out.
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
