//! How events are written for a connection.

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{Frame, Name, encode_frame};

/// The subprotocol in which a connection gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `websocket.io-rpc-v0.1`: an event is a Notify.
    #[default]
    RpcV01,
}

impl Codec {
    /// How many there are.
    pub(crate) const COUNT: usize = 1;

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Appends an event.
    pub(crate) fn encode(self, out: &mut BytesMut, event: Name, payload: Bytes) {
        match self {
            Self::RpcV01 => encode_frame(out, &Frame::Notify { name: event, payload }),
        }
    }
}
