//! This node, and through it the rooms, users and connections of all nodes.
//!
//! Imports errors and options only; everything happens in `roomcast-core`.

pub(crate) mod address;
pub(crate) mod handle;
