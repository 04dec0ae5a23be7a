//! What the tests of several crates share: a client and processes. Never published.

mod client;
mod process;

pub use client::{Client, ClientError, Event};
pub use process::{Node, free_port, http_get};
