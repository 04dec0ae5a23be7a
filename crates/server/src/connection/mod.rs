//! One connection, from its handshake to its last byte, whatever handles it.
//!
//! This module imports `call`, and errors, ends, metrics, options and rates from the crate's root. Bytes
//! enter through `transport` and `driver`, which passes them to a `session`. The session decodes
//! them and passes the messages to its `App`. Output waits in the connection's outbox and leaves
//! through `writer`. All other modules use the connection through `context`.

pub(crate) mod client_info;
pub(crate) mod context;
pub(crate) mod driver;
pub(crate) mod handshake;
pub(crate) mod inbound;
pub(crate) mod publish_share;
pub(crate) mod rates;
pub(crate) mod responder;
pub(crate) mod session;
pub(crate) mod transport;
pub(crate) mod writer;
