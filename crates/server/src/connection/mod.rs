//! One connection, whatever handles it: from its handshake to its last byte.
//!
//! Imports `call`, and from the crate's root errors, ends, metrics and options. Bytes enter by `transport` and `driver`, which gives them to a `session`; what they mean goes to its
//! `App`. Output waits in the connection's outbox and leaves by `writer`. `context` is what all others use of it.

pub(crate) mod client_info;
pub(crate) mod context;
pub(crate) mod driver;
pub(crate) mod handshake;
pub(crate) mod inbound;
pub(crate) mod publish_share;
pub(crate) mod responder;
pub(crate) mod session;
pub(crate) mod transport;
pub(crate) mod writer;
