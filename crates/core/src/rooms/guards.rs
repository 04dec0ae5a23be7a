//! What a connection takes from its node. Dropping these values gives it back, however the
//! connection ended.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;

/// One of a node's places for connections. It is released when dropped.
#[derive(Debug)]
pub struct Place(Arc<LocalNode>);

impl Place {
    pub(crate) fn new(node: Arc<LocalNode>) -> Self {
        Self(node)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.release_place();
    }
}

/// A connection's entry in its node. Dropping it removes the connection from its rooms and from the
/// node, however the connection ended.
pub struct ConnectionGuard {
    node: Arc<LocalNode>,
    connection: Arc<LocalConnection>,
}

impl ConnectionGuard {
    pub(crate) fn new(node: Arc<LocalNode>, connection: Arc<LocalConnection>) -> Self {
        Self { node, connection }
    }

    /// Removes the connection from its rooms permanently. It stays in the node while its last
    /// output is written.
    pub fn leave_rooms(&self) {
        self.node.leave_all(&self.connection);
    }

    /// Returns the connection, which can be shared.
    pub fn shared(&self) -> &Arc<LocalConnection> {
        &self.connection
    }
}

impl Deref for ConnectionGuard {
    type Target = LocalConnection;
    fn deref(&self) -> &LocalConnection {
        &self.connection
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.node.disconnect(&self.connection);
    }
}

impl fmt::Debug for ConnectionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
    }
}
