//! One WebSocket client: a socket that never blocks, from its URL to its end.
//!
//! `target` is where it connects to, `tokens` what it proves its identity with, `stream` is TCP or TLS, `handshake` the opening handshake, `connection` the life of the
//! socket. Frames come out as events; what they mean is not known here.
//! Imports nothing of the crate; `roomcast-protocol` encodes and decodes.

mod connection;
mod handshake;
mod stream;
mod target;
mod tokens;

pub(crate) use connection::{Connection, End, Event, Output};
pub(crate) use stream::{TlsError, tls_config};
pub(crate) use target::Target;
pub(crate) use tokens::{Signed, TokenError, TokenSource, Tokens};
