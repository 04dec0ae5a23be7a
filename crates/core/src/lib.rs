//! Rooms and fan-out inside one node, and what nodes do together.
//!
//! A publish has one path: [`Hub::publish`] hands it to the [`Broker`], and every node's [`Hub::run`], the publisher's
//! too, takes it from there to its members' outboxes. So the order that a room's members see is the broker's order.
//! What concerns one connection, a user, or the members of a room, a node requests from the others, over the same
//! broker. Calls are unknown here: they never leave the connection that they came on.
//!
//! | folder | what it holds | imports |
//! |---|---|---|
//! | `broker` | the way to other nodes, and the embedded broker | `id` |
//! | `rooms` | what this node holds: connections, rooms, output | `broker` |
//! | `cluster` | the other nodes, requests to them, operations on all | `rooms`, `broker` |
//! | `hub` | all of it, put together | everything |

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod broker;
mod cluster;
mod hub;
mod id;
mod metrics;
mod options;
mod rooms;

pub use broker::contract::{BoxFuture, Broker, BrokerError, BrokerStatus};
pub use broker::limits::{MAX_BATCH_BYTES, MAX_WAITING_BYTES, MAX_WAITING_EVENTS};
pub use broker::memory::{MemoryBroker, MemoryBus};
pub use broker::publication::{Position, Publication, Publish};
pub use broker::publication_queue::{PublicationQueue, Reservation};
pub use cluster::message::{MAX_LISTED_MEMBERS, MAX_LISTED_ROOMS};
pub use cluster::nodes::{HEARTBEAT_INTERVAL, MAX_NODES, NODE_TIMEOUT, NodeInfo, Nodes};
pub use cluster::operations::{Cluster, Members, Reached, RequestError, RoomCount, Rooms, RoomsQuery};
pub use cluster::pending::{MAX_REQUESTS, REQUEST_TIMEOUT};
pub use hub::{Hub, PublishError};
pub use id::{ConnectionId, InvalidId, InvalidName, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId, check_event};
pub use metrics::HubMetrics;
pub use options::HubOptions;
pub use rooms::budget::Budget;
pub use rooms::codec::Codec;
pub use rooms::load::NodeLoad;
pub use rooms::local_connection::LocalConnection;
pub use rooms::local_node::{ConnectionGuard, JoinError, LocalNode, Member, Place};
pub use rooms::membership::{Joined, Left, RoomMembers};
pub use rooms::outbox::{Command, FRAME_OVERHEAD, Outbox, Outgoing, Rejected};
