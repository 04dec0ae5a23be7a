//! Rooms and fan-out inside one node, and the door to other nodes.
//!
//! A publish has one path: [`Hub::publish`] hands it to the [`Broker`], and every node's
//! [`Hub::run`], the publisher's too, takes it from there to its members' outboxes. So the order
//! that a room's members see is the broker's order. What concerns one connection, a user, or who is in
//! which room, a node asks the others, over the same broker. Calls are unknown here: they never leave the
//! connection that they came on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod batch;
mod broker;
mod budget;
mod delivery;
mod envelope;
mod event_queue;
mod hub;
mod id;
mod load;
mod membership;
mod memory;
mod message;
mod metrics;
mod neighbours;
mod nodes;
mod operations;
mod options;
mod outbox;
mod pacing;
mod peer;
mod renewal;
mod requests;
mod sharing;
mod shedding;

pub use answer::{MAX_LISTED_MEMBERS, MAX_LISTED_ROOMS};
pub use broker::{BoxFuture, Broker, BrokerError, BrokerStatus};
pub use budget::Budget;
pub use envelope::Envelope;
pub use event_queue::EventQueue;
pub use hub::{Hub, JoinError, Member, PublishError};
pub use id::{ConnectionId, InvalidId, InvalidName, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId, check_event};
pub use load::NodeLoad;
pub use membership::{Joined, Left, Membership};
pub use memory::{MemoryBroker, MemoryBus};
pub use metrics::HubMetrics;
pub use neighbours::AskError;
pub use nodes::{HEARTBEAT_INTERVAL, MAX_NODES, NODE_TIMEOUT, NodeInfo, Nodes};
pub use operations::{Members, Reached, RoomCount, Rooms, RoomsQuery};
pub use options::HubOptions;
pub use outbox::{Command, FRAME_OVERHEAD, Outbox, Outgoing, Rejected};
pub use peer::{Connection, Peer, Place};
pub use requests::{MAX_REQUESTS, REQUEST_TIMEOUT};
