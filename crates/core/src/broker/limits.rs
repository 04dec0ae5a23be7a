//! The bounds that all brokers share.

/// How many events may wait in one queue of a broker: to be accepted, or to be taken by a node's hub.
pub const MAX_WAITING_EVENTS: usize = 65_536;

/// How many bytes of events may wait in one queue of a broker; one event may always wait, whatever its size.
pub const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Events of one room that wait at the same time are put together up to this size, in bytes: by a broker on their way
/// to other nodes, and by the hub on their way to members. A larger event goes alone.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
