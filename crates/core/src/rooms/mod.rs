//! What one node holds: its connections, the rooms that they are in, and the output that waits for them.
//!
//! Imports the broker's contract, names and ids; has no access to other nodes. A connection enters by
//! [`LocalNode::connect`], a publication by [`FanOut::deliver`]; it leaves by each member's [`Outbox`].

pub(crate) mod batch;
pub(crate) mod budget;
pub(crate) mod codec;
pub(crate) mod fan_out;
pub(crate) mod load;
pub(crate) mod local_connection;
pub(crate) mod local_node;
pub(crate) mod membership;
pub(crate) mod outbox;
pub(crate) mod pacing;
pub(crate) mod shedding;
pub(crate) mod subscription;

#[cfg(doc)]
use {fan_out::FanOut, local_node::LocalNode, outbox::Outbox};
