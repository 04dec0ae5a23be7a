//! The nodes of a cluster: which ones are live, requests between them, and operations on all of
//! them.
//!
//! This module imports `rooms`, which holds this node's connections, and the broker's contract. A
//! message from another node enters through [`Cluster::take`]. Requests leave through
//! [`Peers`](peers::Peers), as publications to rooms that no client can name.

pub(crate) mod connections;
pub(crate) mod message;
pub(crate) mod nodes;
pub(crate) mod operations;
pub(crate) mod peers;
pub(crate) mod pending;
pub(crate) mod respond;
pub(crate) mod results;
pub(crate) mod revoker;
pub(crate) mod shared_queries;

#[cfg(doc)]
use operations::Cluster;
