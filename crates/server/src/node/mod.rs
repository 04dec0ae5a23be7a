//! This node, and through it the rooms, users and connections of all nodes.
//!
//! Imports errors, options, payloads and metrics of this crate; everything else happens in `roomcast-core`.

pub(crate) mod address;
pub(crate) mod drain;
pub(crate) mod handle;
