//! Lifecycle events: what happens to connections and rooms, reported to a backend at least once.
//!
//! A [`Recorder`] turns what happens on a node into numbered [`Record`]s. An [`EventStore`], which
//! the nodes of a cluster share, applies each record once. It keeps the events until the backend
//! has accepted them, and what each node has open, so that the other nodes can report the end of it
//! if the node dies. One node at a time delivers the events.
//!
//! | module | what it contains |
//! |---|---|
//! | `event` | the kinds of events, their contents, and CloudEvents |
//! | `store` | what a store does, and the types that it exchanges with nodes |
//! | `recorder` | the records of one node, without I/O |
//! | `memory` | the store of a cluster of one node, in memory |
//! | `delivery` | when the events are delivered, without I/O |
//! | `reporter` | the tasks around these |

#[cfg(doc)]
use {recorder::Recorder, store::EventStore, store::Record};

pub(crate) mod delivery;
pub(crate) mod event;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod recorder;
pub(crate) mod reporter;
#[cfg(test)]
mod simulation;
pub(crate) mod store;
