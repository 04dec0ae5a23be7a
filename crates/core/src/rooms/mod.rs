//! One node's connections, the rooms that they are in, and the output that waits for them.
//!
//! This module imports the broker's contract, names and ids. It has no access to other nodes. A
//! connection enters through [`LocalNode::connect`]. A publication enters through
//! [`FanOut::deliver`] and leaves through the [`Outbox`] of each member.

pub(crate) mod batch;
pub(crate) mod budget;
pub(crate) mod codec;
pub(crate) mod fan_out;
pub(crate) mod guards;
pub(crate) mod load;
pub(crate) mod local_connection;
pub(crate) mod local_node;
pub(crate) mod membership;
pub(crate) mod outbox;
pub(crate) mod pacing;
mod reports;
pub(crate) mod shedding;
pub(crate) mod subscription;

#[cfg(doc)]
use {fan_out::FanOut, local_node::LocalNode, outbox::Outbox};
