//! Lists connections, and describes one of them, for operators.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::connection::Denial;
use crate::access::grants::Grant;
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;
use crate::unix_time::millis;

/// How many connections a list has at most.
pub const MAX_LISTED_CONNECTIONS: usize = 1000;

/// For how long messages are counted if the list is ordered by their rate.
const RATE_TIME: Duration = Duration::from_secs(1);

/// Which connections to list, and in which order.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{ConnectionOrder, ConnectionsQuery};
///
/// let mut query = ConnectionsQuery::default();
/// query.order = ConnectionOrder::MessageRate;
/// query.limit = 10;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnectionsQuery {
    /// Lists only connections of this user.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Lists only connections from this address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Lists only members of this room.
    #[serde(default)]
    pub room: Option<RoomName>,
    /// Lists only connections of this node.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// The order.
    pub order: ConnectionOrder,
    /// With [`ConnectionOrder::Age`], lists only connections that come after this place.
    #[serde(default)]
    pub after: Option<ConnectionPlace>,
    /// How many connections to list, at most [`MAX_LISTED_CONNECTIONS`].
    pub limit: usize,
}

impl Default for ConnectionsQuery {
    /// Lists the 100 oldest connections.
    fn default() -> Self {
        Self { user: None, address: None, room: None, node: None, order: ConnectionOrder::Age, after: None, limit: 100 }
    }
}

/// The order of a list of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionOrder {
    /// The oldest connections first.
    #[default]
    Age,
    /// The connections with the most unread output first, in bytes of memory.
    OutboundBytes,
    /// The connections that send the most messages first. To find out, the nodes count messages for
    /// one second.
    MessageRate,
    /// The connections with the most calls in flight first.
    Calls,
}

/// A connection's place in the order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnectionPlace {
    /// When the connection opened, in milliseconds since 1970.
    pub connected_ms: u64,
    /// The connection.
    pub connection: ConnectionId,
}

impl ConnectionPlace {
    /// Creates a place.
    pub fn new(connected_ms: u64, connection: ConnectionId) -> Self {
        Self { connected_ms, connection }
    }
}

/// A connection in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnectionSummary {
    /// The connection's id, which contains the id of its node.
    pub connection: ConnectionId,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
    /// The client's address, if the node has it.
    pub address: Option<IpAddr>,
    /// When the connection opened, in milliseconds since 1970.
    pub connected_ms: u64,
    /// The number of rooms that the connection is in.
    pub rooms: usize,
    /// The memory of unread output, in bytes.
    pub outbound_bytes: usize,
    /// The memory of unfinished messages, calls and notifications, in bytes.
    pub inbound_bytes: usize,
    /// Calls in flight.
    pub calls: u32,
    /// Messages received since the connection opened.
    pub messages: u64,
    /// Messages per second, if the list is ordered by [`ConnectionOrder::MessageRate`].
    #[serde(default)]
    pub message_rate: Option<u64>,
}

/// One connection, in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnectionDetails {
    /// The same as in a list.
    pub summary: ConnectionSummary,
    /// The rooms that the connection is in.
    pub rooms: Vec<RoomName>,
    /// What the client may do. `None` if clients are not authorized.
    pub access: Option<AccessDetails>,
}

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessDetails {
    /// The grants of the client's identity, with the values of placeholders.
    pub grants: Vec<Grant>,
    /// The grants that were added on the open connection.
    pub added_grants: Vec<Grant>,
    /// When the credential expires, in milliseconds since 1970. `None` if it does not expire.
    pub expires_ms: Option<u64>,
    /// The id of the credential, if it has one.
    pub credential: Option<String>,
    /// The most recent denials, the latest last.
    pub denials: Vec<Denial>,
}

/// A list of connections.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Connections;
///
/// fn print(list: &Connections) {
///     for one in &list.connections {
///         println!("{} has {} calls in flight", one.connection, one.calls);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// The connections, in the requested order.
    pub connections: Vec<ConnectionSummary>,
    /// With [`ConnectionOrder::Age`], if there are more connections: the
    /// [`after`](ConnectionsQuery::after) of the next query.
    pub next: Option<ConnectionPlace>,
    /// Live nodes that did not respond in time. Their connections are missing.
    pub unresponsive_nodes: Vec<NodeId>,
}

impl ConnectionSummary {
    fn of(connection: &LocalConnection) -> Self {
        Self {
            connection: connection.id,
            user: connection.user().cloned(),
            address: connection.peer_addr.map(|address| address.ip()),
            connected_ms: connection.connected_ms,
            rooms: connection.rooms().len(),
            outbound_bytes: connection.outbox.bytes(),
            inbound_bytes: connection.inbound(),
            calls: connection.calls(),
            messages: connection.messages(),
            message_rate: None,
        }
    }

    /// Returns the connection's place in the order of age.
    pub fn place(&self) -> ConnectionPlace {
        ConnectionPlace { connected_ms: self.connected_ms, connection: self.connection }
    }
}

/// Puts connections into an order, and keeps the first ones.
pub(crate) fn first(
    mut connections: Vec<ConnectionSummary>,
    order: ConnectionOrder,
    limit: usize,
) -> Vec<ConnectionSummary> {
    connections.sort_unstable_by_key(|one| {
        let most = match order {
            ConnectionOrder::Age => 0,
            ConnectionOrder::OutboundBytes => one.outbound_bytes as u64,
            ConnectionOrder::MessageRate => one.message_rate.unwrap_or(0),
            ConnectionOrder::Calls => u64::from(one.calls),
        };
        (Reverse(most), one.place())
    });
    connections.truncate(limit);
    connections
}

/// Lists the first connections of this node. If they are ordered by their rate, this takes a second.
pub(crate) async fn list(node: &LocalNode, query: &ConnectionsQuery) -> Vec<ConnectionSummary> {
    let candidates = match (&query.user, &query.room) {
        (Some(user), _) => node.connections_of(user),
        (None, Some(room)) => node.connections_in(room),
        (None, None) => node.connections(),
    };
    let is_wanted = |connection: &LocalConnection| {
        let address = query.address.is_none_or(|wanted| connection.peer_addr.is_some_and(|own| own.ip() == wanted));
        address && (query.user.is_none() || query.room.as_ref().is_none_or(|room| connection.is_in(room)))
    };
    let wanted: Vec<_> = candidates.into_iter().filter(|connection| is_wanted(connection)).collect();
    let mut summaries = Vec::with_capacity(wanted.len());
    if query.order == ConnectionOrder::MessageRate {
        let before: Vec<_> = wanted.iter().map(|connection| connection.messages()).collect();
        tokio::time::sleep(RATE_TIME).await;
        for (connection, before) in wanted.iter().zip(before) {
            let summary = ConnectionSummary::of(connection);
            let message_rate = Some(summary.messages - before);
            summaries.push(ConnectionSummary { message_rate, ..summary });
        }
    } else {
        summaries.extend(wanted.iter().map(|connection| ConnectionSummary::of(connection)));
    }
    if let Some(after) = query.after {
        summaries.retain(|one| one.place() > after);
    }
    first(summaries, query.order, query.limit)
}

/// Describes a connection of this node.
pub(crate) fn describe(connection: &Arc<LocalConnection>) -> ConnectionDetails {
    let access = connection.access.as_ref().map(|access| {
        let identity = access.identity();
        let credential = identity.credential.as_ref();
        AccessDetails {
            grants: identity.grants.list(),
            added_grants: access.added_grants().list(),
            expires_ms: credential.map(|credential| millis(credential.expires_at)),
            credential: credential.and_then(|credential| credential.id.clone()),
            denials: access.denials(),
        }
    });
    ConnectionDetails { summary: ConnectionSummary::of(connection), rooms: connection.rooms(), access }
}
