//! The API of the original tutorial: a loop that receives, matches and answers; and an echo for conformance suites.
//!
//! Imports `connection` and `call`. A client's frame enters by `socket_io`'s `LoopApp` and waits in `inbox` until the
//! loop receives it as a `procedure`. These connections belong to no node: `standalone` holds what they share.

pub mod echo;
pub(crate) mod end_known;
pub(crate) mod inbox;
pub(crate) mod notifier;
pub(crate) mod procedure;
pub(crate) mod socket_io;
pub(crate) mod standalone;
