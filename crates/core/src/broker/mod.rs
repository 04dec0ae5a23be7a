//! The way to other nodes: what a node publishes comes back to every node that is subscribed.
//!
//! The [`Broker`] trait with what it carries, and the embedded broker. Imports names and ids only. An event enters by
//! [`Broker::publish`] and leaves by [`Broker::next_publications`], on every subscribed node.

pub(crate) mod contract;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod publication;
pub(crate) mod publication_queue;

#[cfg(doc)]
use contract::Broker;
