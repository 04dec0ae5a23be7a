//! The limits that all brokers share.

/// How many events may wait in one queue of a broker, until the broker accepts them or a node takes
/// them.
pub const MAX_WAITING_EVENTS: usize = 65_536;

/// How many bytes of events may wait in one queue of a broker. If the queue is empty, it accepts
/// one event of any size.
pub const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The largest batch of events, in bytes. A broker combines events of a room that wait at the same
/// time on their way to other nodes, and the hub does so on their way to members. A larger event is
/// sent alone.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
