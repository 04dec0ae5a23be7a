//! The memory that a client's calls and waiting notifications take, and its bound.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::LocalConnection;
use roomcast_protocol::Name;

/// Memory that a notification takes beside its name and payload while it waits: its handler's future and its place
/// in the queue. Measured with a handler that holds nothing of its own.
const NOTIFICATION_OVERHEAD: usize = 256;

/// The same for a call: its handler's future and task, its cancellation and its entry in the table.
const CALL_OVERHEAD: usize = 1024;

/// The memory that a notification takes while it waits.
pub(crate) fn notification_cost(name: &Name, payload: &Bytes) -> usize {
    NOTIFICATION_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// The memory that a call takes until it is answered.
pub(crate) fn call_cost(name: &Name, payload: &Bytes) -> usize {
    CALL_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// A share of what a connection may have received and not dealt with; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    connection: Arc<LocalConnection>,
    bytes: usize,
}

impl Permit {
    /// Whether so many bytes are within the bound. A share alone always is. Called while bytes are handled, when no
    /// unfinished message is counted.
    pub(crate) fn fits(connection: &LocalConnection, bytes: usize, max: usize) -> bool {
        let held = connection.inbound();
        held == 0 || held + bytes <= max
    }

    /// Takes a share. `None`: it would exceed the bound.
    pub(crate) fn take(connection: &Arc<LocalConnection>, bytes: usize, max: usize) -> Option<Self> {
        Self::fits(connection, bytes, max).then(|| Self::take_admitted(connection, bytes))
    }

    /// Takes a share for a call that was just admitted: only the connection's own task takes shares, so it still fits.
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
