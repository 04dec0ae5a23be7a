//! The broker's contract: every node that is subscribed to a room receives the events that any node
//! publishes to it.
//!
//! This module contains the [`Broker`] trait, the types that it carries, and the broker in memory.
//! It imports only names and ids. An event enters through [`Broker::publish`] and leaves through
//! [`Broker::next_publications`], on every subscribed node.

pub(crate) mod contract;
pub(crate) mod ledger;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod publication;
pub(crate) mod publication_queue;

#[cfg(doc)]
use contract::Broker;
