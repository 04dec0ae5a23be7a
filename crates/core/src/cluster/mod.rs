//! The nodes of a cluster: which are live, their requests to one another, and operations on all of them.
//!
//! Imports `rooms` (what this node holds) and the broker's contract. A message from another node enters by
//! [`Cluster::take`]; requests leave by [`Peers`](peers::Peers), as publications to rooms that no client can name.

pub(crate) mod message;
pub(crate) mod nodes;
pub(crate) mod operations;
pub(crate) mod peers;
pub(crate) mod pending;
pub(crate) mod respond;
pub(crate) mod shared_queries;

#[cfg(doc)]
use operations::Cluster;
