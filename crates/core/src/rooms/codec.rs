//! How events are encoded for a connection.

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{Frame, Name, encode_frame};

/// The subprotocol that encodes a connection's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `websocket.io-rpc-v0.1`, which encodes an event as a Notify.
    #[default]
    RpcV01,
}

impl Codec {
    /// The number of codecs.
    pub(crate) const COUNT: usize = 1;

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Appends an encoded event.
    pub(crate) fn encode(self, out: &mut BytesMut, event: Name, payload: Bytes) {
        match self {
            Self::RpcV01 => encode_frame(out, &Frame::Notify { name: event, payload }),
        }
    }
}
