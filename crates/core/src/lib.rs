//! Rooms and fan-out inside one node, and what the nodes of a cluster do together.
//!
//! This crate is internal. Applications use the crate `roomcast`, which exports the types that they
//! need.
//!
//! Every event takes the same path. [`Hub::publish`] passes it to the [`Broker`]. On every node,
//! including the publisher's, [`Hub::run`] receives it from the broker and queues it to the room's
//! members. All members therefore see the events of a room in the broker's order.
//!
//! Operations on a connection, on a user or on the list of a room's members are requests between
//! nodes, which use the same broker. Calls are not part of this crate, because they never leave the
//! connection on which they arrived.
//!
//! | folder | what it contains | what it imports |
//! |---|---|---|
//! | `broker` | the broker's contract, and the broker in memory | `id` |
//! | `events` | lifecycle events: their records, their store in memory, and their delivery | `broker`, `access` |
//! | `rooms` | this node's connections, rooms and output | `broker`, `access`, `events` |
//! | `cluster` | the other nodes, requests to them, and operations on all nodes | `rooms`, `broker` |
//! | `access` | who a client is and what it may do | `id`, `broker` |
//! | `hub` | one node, which combines all of these | everything |

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod access;
mod broker;
mod cluster;
mod events;
mod hub;
mod id;
mod metrics;
mod options;
mod rooms;
pub mod trace;
mod unix_time;

pub use access::call_pattern::CallPattern;
pub use access::claims::claim;
pub use access::connection::{Access, Denial, PermissionChange, Refreshing};
pub use access::expiry::{Expiry, ExpiryEvent};
pub use access::grants::{Grant, Grants, MAX_PATTERNS, Right, Rule, RuleError, Subject, Verdict};
pub use access::identity::{Credential, EXPIRY_GRACE, Identity, RefreshError};
pub use access::pattern::{Names, Pattern, PatternError, Template};
pub use access::revocation::{Holder, InvalidRevocation, MAX_CREDENTIAL_ID, Revocation, Revoked};
pub use access::revocations::{MAX_LEDGER_AGE, MAX_REVOCATIONS};
pub use access::room_patterns::RoomPatterns;
pub use access::shared_grants::SharedGrants;
pub use broker::contract::{BoxFuture, Broker, BrokerError, BrokerStatus};
pub use broker::ledger::{Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS};
pub use broker::limits::{MAX_BATCH_BYTES, MAX_WAITING_BYTES, MAX_WAITING_EVENTS};
pub use broker::memory::{MemoryBroker, MemoryBus};
pub use broker::publication::{Position, Publication, Publish};
pub use broker::publication_queue::{PublicationQueue, Reservation};
pub use cluster::connections::{
    AccessDetails, ConnectionDetails, ConnectionOrder, ConnectionPlace, ConnectionSummary, Connections,
    ConnectionsQuery, MAX_LISTED_CONNECTIONS,
};
pub use cluster::message::{MAX_LISTED_MEMBERS, MAX_LISTED_ROOMS};
pub use cluster::nodes::{HEARTBEAT_INTERVAL, MAX_NODES, NODE_TIMEOUT, NodeInfo, Nodes};
pub use cluster::operations::Cluster;
pub use cluster::pending::{MAX_REQUESTS, REQUEST_TIMEOUT};
pub use cluster::results::{Members, Reached, RequestError, RoomCount, Rooms, RoomsQuery};
pub use cluster::revoker::{NotAccepted, Revoker};
pub use events::delivery::{DELIVERY_TIMEOUT, MAX_EVENT_AGE};
pub use events::event::{
    EVENTS_CONTENT_TYPE, EventBatch, EventContent, EventKind, EventKinds, LifecycleEvent, UnknownEventKind,
};
pub use events::memory::MemoryEvents;
pub use events::metrics::EventMetrics;
pub use events::recorder::{EndedCall, Ending, MAX_KEPT, MAX_UNSENT};
pub use events::reporter::{EventOptions, Events};
pub use events::store::{
    Accepted, Change, Draft, EventRules, EventSink, EventStore, Held, MAX_BATCH_EVENTS, MAX_DEAD_EVENTS, MAX_REPORTED,
    Record, Report, Reported, Take, WaitingEvent,
};
pub use hub::{Hub, PublishError};
pub use id::{ConnectionId, InvalidId, InvalidName, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId, check_event};
pub use metrics::HubMetrics;
pub use options::HubOptions;
pub use rooms::budget::Budget;
pub use rooms::codec::Codec;
pub use rooms::guards::{ConnectionGuard, Place};
pub use rooms::load::NodeLoad;
pub use rooms::local_connection::{LocalConnection, NewClient};
pub use rooms::local_node::{JoinError, LocalNode, Member};
pub use rooms::membership::{Joined, Left, RoomMembers};
pub use rooms::outbox::{Command, FRAME_OVERHEAD, Outbox, Outgoing, Rejected};
pub use trace::TraceContext;
