//! The subprotocol `roomcast.v1`: its frames, and both ends of a connection, as values.
//!
//! It is a superset of `websocket.io-rpc-v0.1`: typed errors, deadlines, streams with flow control,
//! calls in both directions, numbered events, and a handover between nodes.
//!
//! Each end decodes what it receives with [`ServerConnection`] or [`ClientConnection`], and passes the
//! frames of calls to its [`Calls`]. Calls are the same at both ends, because both sides make them.
//!
//! Reading order: the fields (`text`, `headers`, `cursor`), the frames (`call`, `failure`, `frame`),
//! the calls (`credit`, `incoming_calls`, `outgoing_calls`, `calls`), then the ends (`server`,
//! `ticker`, `client`, `rooms`).

mod call;
mod calls;
mod client;
mod credit;
mod cursor;
mod failure;
mod frame;
mod headers;
mod incoming_calls;
mod limits;
mod outgoing_calls;
mod rooms;
mod server;
mod side;
mod text;
mod ticker;
mod violation;

pub use call::{Call, CallFlags};
pub use calls::{CallEvent, CallFrame, Calls};
pub use client::{ClientConnection, ClientEvent};
pub use cursor::MAX_NUMBER;
pub use failure::{Code, Error, ErrorFlags};
pub use frame::{Event, Frame};
pub use headers::{EncodedHeaders, Headers, HeadersError, MAX_HEADERS_LEN};
pub use incoming_calls::{IncomingCalls, ItemError};
pub use limits::{MAX_FRAME_HEADER_LEN, MAX_ROOMS, MAX_SERVER_CALLS};
pub use outgoing_calls::{OutgoingCalls, Unfinished};
pub use rooms::{Room, Rooms};
pub use server::{ServerConnection, ServerEvent};
pub use side::Side;
pub use text::{LongText, Reason, Text};
pub use ticker::Ticker;
pub use violation::{MalformedFrame, Violation};

/// The WebSocket subprotocol (RFC 6455, section 1.9) of these frames.
pub const SUBPROTOCOL: &str = "roomcast.v1";
