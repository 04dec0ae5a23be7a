//! The subprotocol `roomcast.v1`: its frames, as values.
//!
//! It is a superset of `websocket.io-rpc-v0.1`: typed errors, deadlines, streams with flow control,
//! calls in both directions, numbered events, and a handover between nodes.
//!
//! Reading order: `text`, `headers`, `violation`, `cursor`, `call`, `failure`, `frame`.

mod call;
mod cursor;
mod failure;
mod frame;
mod headers;
mod side;
mod text;
mod violation;

pub use call::{Call, CallFlags};
pub use cursor::MAX_NUMBER;
pub use failure::{Code, Error, ErrorFlags};
pub use frame::{Event, Frame};
pub use headers::{EncodedHeaders, Headers, HeadersError, MAX_HEADERS_LEN};
pub use side::Side;
pub use text::{LongText, Reason, Text};
pub use violation::MalformedFrame;

/// The WebSocket subprotocol (RFC 6455, section 1.9) of these frames.
pub const SUBPROTOCOL: &str = "roomcast.v1";
