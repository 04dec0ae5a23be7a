//! The memory of a client's calls and waiting notifications, and its limit.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::LocalConnection;
use roomcast_protocol::Name;

/// The memory that a waiting notification takes in addition to its name and payload: its handler's
/// future and its place in the queue. Measured with a handler that holds no data of its own.
const NOTIFICATION_OVERHEAD: usize = 256;

/// The same for a call: its handler's future and task, its cancellation, and its entry in the
/// table.
const CALL_OVERHEAD: usize = 1024;

/// Returns how much memory a notification takes while it waits.
pub(crate) fn notification_cost(name: &Name, payload: &Bytes) -> usize {
    NOTIFICATION_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// Returns how much memory a call takes until it is answered.
pub(crate) fn call_cost(name: &Name, payload: &Bytes) -> usize {
    CALL_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// A part of a connection's inbound memory, which is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    connection: Arc<LocalConnection>,
    bytes: usize,
}

impl Permit {
    /// Returns whether this many bytes are within the limit. If nothing else is held, any number of
    /// bytes is. This is called while bytes are handled, when no unfinished message is counted.
    pub(crate) fn fits(connection: &LocalConnection, bytes: usize, max: usize) -> bool {
        let held = connection.inbound();
        held == 0 || held + bytes <= max
    }

    /// Takes this many bytes. Returns `None` if they would exceed the limit.
    pub(crate) fn take(connection: &Arc<LocalConnection>, bytes: usize, max: usize) -> Option<Self> {
        Self::fits(connection, bytes, max).then(|| Self::take_admitted(connection, bytes))
    }

    /// Takes memory for a call that was just admitted. It still fits, because only the connection's
    /// own task takes memory.
    pub(crate) fn take_admitted(connection: &Arc<LocalConnection>, bytes: usize) -> Self {
        connection.charge_inbound(bytes);
        Self { connection: Arc::clone(connection), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connection.release_inbound(self.bytes);
    }
}
