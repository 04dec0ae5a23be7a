//! The answers' bodies.

use roomcast::{Members, NodeId, NodeInfo, Position, Reached, Rooms};
use serde::Serialize;
use utoipa::ToSchema;

/// The place of an event in its room.
#[derive(Serialize, ToSchema)]
#[schema(as = Position)]
pub(crate) struct PositionBody {
    /// The numbering that the offset belongs to; offsets of different epochs cannot be compared. It is empty if the event
    /// has no position
    #[schema(example = "60d21b4a3c9f7")]
    epoch: String,
    /// The number of the event in its room, which increases by one with each event
    #[schema(example = 41)]
    offset: u64,
}

impl From<Position> for PositionBody {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch_text(), offset: position.offset }
    }
}

/// A room's members over the cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = Members)]
pub(crate) struct MembersBody {
    /// The exact number of members on the nodes that responded
    count: usize,
    /// The members; at most 10,000 from each node
    members: Vec<MemberBody>,
    /// Ids of the nodes that did not respond in time; their members are missing
    unresponsive_nodes: Vec<String>,
}

/// A member of a room.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
struct MemberBody {
    /// The connection's id
    #[schema(example = "0123456789abcdef-1f")]
    connection: String,
    /// The connection's user, if it has one
    #[schema(required = true)]
    user: Option<String>,
}

impl From<&Members> for MembersBody {
    fn from(members: &Members) -> Self {
        let listed = members.members.iter().map(|member| MemberBody {
            connection: member.connection.to_string(),
            user: member.user.as_ref().map(ToString::to_string),
        });
        Self { count: members.count, members: listed.collect(), unresponsive_nodes: texts(&members.unresponsive_nodes) }
    }
}

/// Rooms that have members.
#[derive(Serialize, ToSchema)]
#[schema(as = Rooms)]
pub(crate) struct RoomsBody {
    /// The rooms, sorted by the bytes of their names
    rooms: Vec<RoomBody>,
    /// The `after` of the next page; null on the last page
    #[schema(required = true)]
    next: Option<String>,
    /// Ids of the nodes that did not respond in time; their rooms and members are missing
    unresponsive_nodes: Vec<String>,
}

/// A room that has members.
#[derive(Serialize, ToSchema)]
#[schema(as = Room)]
struct RoomBody {
    /// The room's name
    #[schema(example = "lobby")]
    room: String,
    /// The number of its members
    members: usize,
}

impl From<Rooms> for RoomsBody {
    fn from(rooms: Rooms) -> Self {
        let listed = rooms.rooms.into_iter().map(|room| RoomBody { room: room.room.into(), members: room.members });
        Self {
            rooms: listed.collect(),
            next: rooms.next.map(String::from),
            unresponsive_nodes: texts(&rooms.unresponsive_nodes),
        }
    }
}

/// How many of a user's connections a request reached.
#[derive(Serialize, ToSchema)]
#[schema(as = Reached)]
pub(crate) struct ReachedBody {
    /// The number of connections, at least 1
    connections: usize,
    /// Ids of the nodes that did not respond in time; they may have more of the user's connections
    unresponsive_nodes: Vec<String>,
}

impl From<Reached> for ReachedBody {
    fn from(reached: Reached) -> Self {
        Self { connections: reached.connections, unresponsive_nodes: texts(&reached.unresponsive_nodes) }
    }
}

/// The effect of a revocation.
#[derive(Serialize, ToSchema)]
#[schema(as = Revoked)]
pub(crate) struct RevokedBody {
    /// The number of connections that are closing; it may be 0
    connections: usize,
    /// Ids of the nodes that did not respond in time; they enforce the revocation as soon as they reach Redis
    unresponsive_nodes: Vec<String>,
}

impl From<Reached> for RevokedBody {
    fn from(reached: Reached) -> Self {
        Self { connections: reached.connections, unresponsive_nodes: texts(&reached.unresponsive_nodes) }
    }
}

/// The live nodes.
#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(crate) struct NodesBody {
    /// The nodes, by id
    nodes: Vec<NodeBody>,
}

/// A live node.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeBody {
    /// The id of the node, which changes at each start
    #[schema(example = "0123456789abcdef")]
    node: String,
    /// The version of Roomcast that it runs
    version: String,
    /// The number of its connections
    connections: usize,
    /// Seconds since its start
    uptime_seconds: u64,
}

impl From<Vec<NodeInfo>> for NodesBody {
    fn from(nodes: Vec<NodeInfo>) -> Self {
        let nodes = nodes.into_iter().map(|info| NodeBody {
            node: info.node.to_string(),
            version: info.version,
            connections: info.connections,
            uptime_seconds: info.uptime_seconds,
        });
        Self { nodes: nodes.collect() }
    }
}

fn texts(ids: &[NodeId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
