//! The two sides of a connection, and which call ids belong to each.

use crate::call_table::CallId;

/// The top bit of a call's id. It is set in the ids of the server's calls.
const SERVER_BIT: u32 = 1 << 31;

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Side {
    /// Returns the other side.
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Returns whether a call with this id is one that this side makes.
    pub fn makes(self, id: CallId) -> bool {
        (id.0 & SERVER_BIT != 0) == (self == Self::Server)
    }

    /// Returns the id of the `nth` call of this side. Ids repeat after 2^31 calls.
    pub(super) fn call_id(self, nth: u32) -> CallId {
        match self {
            Self::Client => CallId(nth & !SERVER_BIT),
            Self::Server => CallId(nth | SERVER_BIT),
        }
    }
}
