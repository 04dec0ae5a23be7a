//! What the tests of several crates share: a client, processes, and what every broker must do. Never published.

pub mod broker_contract;
mod client;
mod process;

pub use client::{Client, ClientError, Event};
pub use process::{Node, free_port, http_get};
