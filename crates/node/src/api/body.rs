//! The answers' bodies.

use roomcast::{Members, NodeId, NodeInfo, Reached, Rooms};
use serde::Serialize;
use utoipa::ToSchema;

/// A room's members over the cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = Members)]
pub(crate) struct MembersBody {
    /// How many there are on the nodes that answered, exactly
    count: usize,
    /// Who they are, at most 10,000 of each node
    members: Vec<MemberBody>,
    /// Ids of nodes that did not answer in time, so that their members are missing
    unresponsive_nodes: Vec<String>,
}

/// A member of a room.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
struct MemberBody {
    /// The connection's id
    #[schema(example = "0123456789abcdef-1f")]
    connection: String,
    /// Whose connection it is, if that is known
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
    /// By name
    rooms: Vec<RoomBody>,
    /// What to say as `after` for the next page; null on the last
    #[schema(required = true)]
    next: Option<String>,
    /// Ids of nodes that did not answer in time, so that their rooms and members are missing
    unresponsive_nodes: Vec<String>,
}

/// A room that has members.
#[derive(Serialize, ToSchema)]
#[schema(as = Room)]
struct RoomBody {
    /// Its name
    #[schema(example = "lobby")]
    room: String,
    /// How many members it has
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

/// To how many of a user's connections it was done.
#[derive(Serialize, ToSchema)]
#[schema(as = Reached)]
pub(crate) struct ReachedBody {
    /// How many, at least one
    connections: usize,
    /// Ids of nodes that did not answer in time; what they did is not known
    unresponsive_nodes: Vec<String>,
}

impl From<Reached> for ReachedBody {
    fn from(reached: Reached) -> Self {
        Self { connections: reached.connections, unresponsive_nodes: texts(&reached.unresponsive_nodes) }
    }
}

/// The live nodes.
#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(crate) struct NodesBody {
    /// By id
    nodes: Vec<NodeBody>,
}

/// A live node.
#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeBody {
    /// Its id, another at each start
    #[schema(example = "0123456789abcdef")]
    node: String,
    /// The version it was built from
    version: String,
    /// How many connections it has
    connections: usize,
    /// How long it has run
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
