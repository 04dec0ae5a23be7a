//! The limits of a hub.

/// The limits of a node's hub.
///
/// ```
/// use roomcast_core::HubOptions;
///
/// let mut options = HubOptions::default();
/// options.max_rooms = 100;
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HubOptions {
    /// Most rooms that a connection may be in.
    pub max_rooms: usize,
    /// Most rooms that have members on the node, or that the broker still keeps.
    pub max_node_rooms: usize,
    /// Memory that a connection's outbound queue may take, in bytes. Beyond it, the connection is
    /// closed with 4408.
    pub max_outbound: usize,
    /// Memory that the unfinished messages, calls and notifications of all connections may take, in
    /// bytes. Beyond it, the connections that hold the most are closed with 1013.
    pub inbound_memory: usize,
    /// Memory that the unwritten output of all connections may take, in bytes. Beyond it, the
    /// connections that hold the most are closed with 4408.
    pub outbound_memory: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            max_rooms: 1000,
            max_node_rooms: 1_000_000,
            max_outbound: 4 * 1024 * 1024,
            inbound_memory: 1024 * 1024 * 1024,
            outbound_memory: 1024 * 1024 * 1024,
        }
    }
}
