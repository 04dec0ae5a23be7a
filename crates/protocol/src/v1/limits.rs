//! What a peer can make the other side hold.

use crate::frame::MAX_NAME_LEN;
use crate::v1::headers::MAX_HEADERS_LEN;

/// The longest fields before a payload, in bytes: those of a Call with a name of 255 bytes and headers
/// of [`MAX_HEADERS_LEN`]. A server accepts messages of `max_payload` and this many bytes.
pub const MAX_FRAME_HEADER_LEN: usize = 1 + 4 + 1 + 4 + 4 + 1 + MAX_NAME_LEN + 2 + MAX_HEADERS_LEN;

/// The number of calls in flight from the server to one client. The client answers further calls with
/// `RESOURCE_EXHAUSTED`. The limit in the other direction is `max_calls` in the Welcome.
pub const MAX_SERVER_CALLS: usize = 1024;

/// The number of rooms that a client tracks on one connection. Nodes have a limit of their own,
/// `max_rooms`, which is 1,000 by default.
pub const MAX_ROOMS: usize = 65_536;
