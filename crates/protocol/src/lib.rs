//! Roomcast's wire protocol, `websocket.io-rpc-v0.1`, and both ends of a connection, as values.
//!
//! Nothing here reads a clock, opens a socket or spawns a task. Bytes and elapsed time are
//! arguments; bytes and events are results. The crate `roomcast` adds the I/O.
//!
//! Reading order: the frames, the WebSocket layer below them, then the two ends of a connection,
//! which use both. [`v1`] contains the same for the next version of the protocol.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod call_table;
mod client;
mod close;
mod error;
mod frame;
mod keepalive;
mod limits;
mod server;
pub mod v1;
mod websocket;
mod websocket_client;

pub use call_table::{CallId, CallKey, CallTable, StartError};
pub use client::{ClientConnection, ClientEvent};
pub use close::{CloseCode, CloseFrame};
pub use error::{MalformedFrame, Violation, WebSocketError};
pub use frame::{Frame, FrameRef, MAX_NAME_LEN, Name, NameError};
pub use keepalive::{KeepAlive, KeepAliveAction};
pub use limits::{DEFAULT_MAX_PAYLOAD, Limits, MAX_FRAME_HEADER_LEN, MAX_PAYLOAD};
pub use server::{Event, ServerConnection};
pub use websocket::{
    Decoder, Incoming, MAX_CONTROL_PAYLOAD, Opcode, Unfinished, encode_close, encode_frame, encode_header,
    encode_message,
};
pub use websocket_client::{ClientDecoder, FromServer, Mask, encode_client_frame, encode_client_message};

/// The WebSocket subprotocol (RFC 6455, section 1.9) that this crate implements.
pub const SUBPROTOCOL: &str = "websocket.io-rpc-v0.1";
