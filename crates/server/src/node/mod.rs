//! This node, and the rooms, users and connections of all nodes.
//!
//! This module imports errors, options, payloads, rates and metrics of this crate. `roomcast-core` does
//! the rest.

pub(crate) mod address;
pub(crate) mod addresses;
pub(crate) mod drain;
mod events;
pub(crate) mod handle;
