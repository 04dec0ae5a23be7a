//! The subprotocol `roomcast.v1`: its frames, as values.
//!
//! It is a superset of `websocket.io-rpc-v0.1`: typed errors, deadlines, streams with flow control,
//! calls in both directions, numbered events, and a handover between nodes.
//!
//! Reading order: `text`, `headers`, `error`, `cursor`, `frame`.

mod cursor;
mod error;
mod frame;
mod headers;
mod text;

pub use cursor::MAX_NUMBER;
pub use error::MalformedFrame;
pub use frame::{Call, CallFlags, Error, ErrorFlags, Event, Frame, Sender};
pub use headers::{EncodedHeaders, Headers, HeadersError, MAX_HEADERS_LEN};
pub use text::{LongText, Reason, Text};

/// The WebSocket subprotocol (RFC 6455, section 1.9) of these frames.
pub const SUBPROTOCOL: &str = "roomcast.v1";
