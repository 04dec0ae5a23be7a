//! What a connection takes from its node. Dropping these values gives it back, however the
//! connection ended.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::id::UserId;
use crate::rooms::codec::Codec;
use crate::rooms::local_connection::{LocalConnection, NewClient};
use crate::rooms::local_node::LocalNode;

impl LocalNode {
    /// Takes one of `max` places for connections. Returns `None` if all are taken. A connection
    /// holds its place from before its upgrade until its end, so there are never more connections
    /// than places, however many arrive at once.
    pub fn take_place(self: &Arc<Self>, max: usize) -> Option<Place> {
        self.claim_place(max).then(|| Place(Arc::clone(self)))
    }

    /// Adds a connection whose client is not authorized. Dropping the result removes it.
    pub fn connect(self: &Arc<Self>, user: Option<UserId>, codec: Codec) -> ConnectionGuard {
        self.connect_client(NewClient { user, ..NewClient::default() }, codec)
    }

    /// Adds a connection. Dropping the result removes it.
    pub fn connect_client(self: &Arc<Self>, client: NewClient, codec: Codec) -> ConnectionGuard {
        ConnectionGuard { connection: self.add_connection(client, codec), node: Arc::clone(self) }
    }
}

/// One of a node's places for connections. It is released when dropped.
#[derive(Debug)]
pub struct Place(Arc<LocalNode>);

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
