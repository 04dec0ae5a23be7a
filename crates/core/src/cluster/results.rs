//! What operations on all nodes take and return.

use thiserror::Error;

use crate::broker::contract::BrokerError;
use crate::cluster::message::MAX_LISTED_ROOMS;
use crate::cluster::peers::SendError;
use crate::cluster::pending::MAX_REQUESTS;
use crate::id::{NodeId, RoomName};
use crate::rooms::local_node::{JoinError, Member};

/// Why an operation on other nodes failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The connection or user does not exist on any node.
    #[error("{what} not found")]
    NotFound {
        /// What was not found: a connection or a user.
        what: &'static str,
    },
    /// The connection did not become a member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The broker failed. It may have accepted the request nevertheless, if its connection was lost
    /// meanwhile.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Some nodes did not respond in time, or their version does not support the request. Nodes
    /// that did not respond in time may have carried it out.
    #[error("no response from {}", nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", "))]
    NoResponse {
        /// The ids of these nodes.
        nodes: Vec<NodeId>,
    },
    /// Too many requests wait for responses.
    #[error("{MAX_REQUESTS} requests to other nodes are pending, which is the limit; try again later")]
    TooManyRequests,
}

impl From<SendError> for RequestError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Broker(error) => Self::Broker(error),
            SendError::TooManyRequests => Self::TooManyRequests,
        }
    }
}

/// The members of a room, on all nodes.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Members, UserId};
///
/// /// Returns whether a user is in the room, or `None` if this is unknown.
/// fn has_user(members: &Members, user: &UserId) -> Option<bool> {
///     let is_member = members.members.iter().any(|member| member.user.as_ref() == Some(user));
///     (is_member || members.unresponsive_nodes.is_empty()).then_some(is_member)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// How many members the room has on the nodes that responded.
    pub count: usize,
    /// The members, up to 10,000 for each node.
    pub members: Vec<Member>,
    /// Live nodes that did not respond in time. Their members are missing.
    pub unresponsive_nodes: Vec<NodeId>,
}

/// Which rooms to list.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::RoomsQuery;
///
/// let mut query = RoomsQuery::default();
/// query.prefix = "chat-".to_owned();
/// query.limit = 100;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomsQuery {
    /// Lists only rooms whose names begin with this.
    pub prefix: String,
    /// Lists only rooms whose names come after this one in order. To get the next page, use
    /// [`Rooms::next`].
    pub after: String,
    /// How many rooms to list, at most 1,000.
    pub limit: usize,
}

impl Default for RoomsQuery {
    /// Lists the first 1,000 of all rooms.
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), limit: MAX_LISTED_ROOMS }
    }
}

/// A room in a list. See [`Rooms`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomCount {
    /// The room's name.
    pub room: RoomName,
    /// How many members the room has on the nodes that responded.
    pub members: usize,
}

/// Rooms that have members, on all nodes.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Rooms, RoomsQuery};
///
/// /// Adds a page of rooms to a list, and returns the query for the next page, if there is one.
/// fn take_page(query: &RoomsQuery, page: Rooms, list: &mut Vec<String>) -> Option<RoomsQuery> {
///     list.extend(page.rooms.iter().map(|room| format!("{}: {} members", room.room, room.members)));
///     let mut next = query.clone();
///     next.after = page.next?.to_string();
///     Some(next)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rooms {
    /// The rooms, ordered by name.
    pub rooms: Vec<RoomCount>,
    /// If there are more rooms, the name for the [`after`](RoomsQuery::after) of the next query.
    pub next: Option<RoomName>,
    /// Live nodes that did not respond in time. Their rooms and members are missing.
    pub unresponsive_nodes: Vec<NodeId>,
}

/// How many connections of a user an operation reached.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Reached;
///
/// fn is_complete(reached: &Reached) -> bool {
///     reached.connections > 0 && reached.unresponsive_nodes.is_empty()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// The number of connections for which the operation was carried out.
    pub connections: usize,
    /// Live nodes that did not respond in time. They may have connections of the user, and may have
    /// carried out the operation for these.
    pub unresponsive_nodes: Vec<NodeId>,
}
