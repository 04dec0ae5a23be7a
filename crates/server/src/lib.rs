//! Real-time backend for axum: calls with cancellation, notifications and rooms over one WebSocket.
//!
//! There are two ways to handle connections. Both use the same core:
//!
//! * [`Router`] routes calls and notifications to handlers by name, with typed arguments and
//!   errors, and supports rooms. Use it for new code.
//! * [`tutorial::SocketIo`] is for a loop of your own that receives what the client sends. Code
//!   written for the crate `axum-socket-io` uses it, such as [the tutorial](#the-tutorial) below.
//!
//! [`testing`] provides clients for the tests of your handlers. A [`Broker`] connects the nodes of
//! a cluster; the crate `roomcast-redis` provides one over Redis. To build these pages, run
//! `cargo doc --no-deps -p roomcast --open`.
//!
//! ```no_run
//! use roomcast::{CallError, Node, Router, Socket, SocketIoUpgrade, Text};
//! use axum::routing::get;
//!
//! async fn uppercase(Text(text): Text) -> String {
//!     text.to_uppercase()
//! }
//!
//! async fn ping(socket: Socket, payload: bytes::Bytes) -> Result<(), CallError> {
//!     Ok(socket.notify("pong", payload)?)
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let node = Node::embedded(Default::default());
//!     let router = Router::new(node.clone())
//!         .call("uppercase", uppercase)
//!         .notify("ping", ping)
//!         .on_connect(async |socket: Socket| socket.join("lobby").await);
//!     let app = axum::Router::new()
//!         .route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await));
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     axum::serve(listener, app).await
//! }
//! ```
//!
//! # The tutorial
//!
//! This is the tutorial's complete server. `examples/tutorial` runs it, with its web page.
//!
#![cfg_attr(any(doc, doctest), doc = concat!(
    "```no_run\nmod room {\n", include_str!("../../../examples/tutorial/src/room.rs"), "}\n",
    "mod socket {\n", include_str!("../../../examples/tutorial/src/socket.rs"), "}\n",
))]
//! use axum::{extract::ConnectInfo, response::IntoResponse, routing::get, Router};
//! use roomcast::SocketIoUpgrade;
//! use std::{io, net::SocketAddr};
//! use tokio::net::TcpListener;
//!
//! #[tokio::main]
//! async fn main() -> io::Result<()> {
//!     let app = Router::new().route("/socket", get(ws_handler));
//!     axum::serve(
//!         TcpListener::bind("127.0.0.1:3000").await?,
//!         app.into_make_service_with_connect_info::<SocketAddr>(),
//!     )
//!     .await
//! }
//!
//! async fn ws_handler(ws: SocketIoUpgrade, info: ConnectInfo<SocketAddr>) -> impl IntoResponse {
//!     ws.on_upgrade(16, move |socket| socket::handle_socket(socket, info.0))
//! }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod app;
mod call;
mod connection;
mod end;
mod error;
mod metrics;
mod node;
mod options;
mod payload;
mod published;
mod rate;
#[doc(hidden)]
pub mod raw;
pub mod testing;
pub mod tutorial;

pub use app::authorizer::Authorizer;
pub use app::context::{
    CallContext, ConnectContext, Context, DisconnectContext, MessageContext, NotificationContext, PublishContext,
    RoomAction, RoomContext,
};
pub use app::extract::{FromContext, Text};
pub use app::handler::Handler;
pub use app::router::Router;
pub use app::socket::Socket;
pub use app::spans::ACCESS;
pub use app::upgrade::SocketIoUpgrade;
pub use call::cancel::{Cancel, Cancelled};
pub use call::grace::Grace;
pub use connection::handshake::UpgradeRejection;
pub use end::{CancelCause, Disconnected};
pub use error::{CallError, Code, InvalidPayload, NotifyError, UnknownCode};
pub use node::address::{Connection, Room, User};
pub use node::drain::DrainPlan;
pub use node::handle::{Node, NodeFailure};
pub use options::{Options, RateLimits};
pub use payload::{IntoPayload, IntoReply};
pub use rate::RateLimit;
#[doc(no_inline)]
pub use tutorial::{Message, Notifier, Procedure, Response, SocketIo};

pub use roomcast_core::{
    Accepted, AccessDetails, BoxFuture, Broker, BrokerError, BrokerStatus, CallPattern, Change, ConnectionDetails,
    ConnectionId, ConnectionOrder, ConnectionPlace, ConnectionSummary, Connections, ConnectionsQuery, Credential,
    Denial, Draft, EVENTS_CONTENT_TYPE, EXPIRY_GRACE, EventBatch, EventContent, EventKind, EventKinds, EventOptions,
    EventRules, EventSink, EventStore, Exchange, Grant, Grants, Held, Identity, InvalidId, InvalidName,
    InvalidRevocation, LedgerPage, LedgerPosition, LedgerRecord, LifecycleEvent, MAX_BATCH_EVENTS, MAX_CREDENTIAL_ID,
    MAX_DEAD_EVENTS, MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS, MAX_LISTED_CONNECTIONS, MAX_PATTERNS, MAX_REPORTED,
    MAX_REVOCATIONS, MAX_WAITING_BYTES, MAX_WAITING_EVENTS, Member, Members, MemoryBroker, MemoryBus, MemoryEvents,
    Names, NodeId, NodeInfo, PatternError, Position, Publication, PublicationQueue, Publish, Reached, Record, Report,
    Reported, Reservation, Revocation, Revoked, Right, RoomCount, RoomName, RoomPatterns, Rooms, RoomsQuery, Rule,
    RuleError, Subject, Take, UnknownEventKind, UserId, Verdict, WaitingEvent, check_event, claim,
};
pub use roomcast_core::{TraceContext, trace};
pub use roomcast_protocol::{CallId, CloseCode, CloseFrame, MAX_PAYLOAD, Name, NameError, SUBPROTOCOL};

/// The crate `prometheus`. [`Node::register_metrics`] registers a node's metrics in one of its
/// registries.
pub use prometheus;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/brokers.md")]
struct BrokersGuide;
