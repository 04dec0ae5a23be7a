//! What the tests of several crates share: a client, processes, faults, and what every broker must do.
//! Never published.

pub mod broker_contract;
mod client;
mod haproxy;
mod link;
mod process;
mod program;
mod redis;

pub use client::{Client, ClientError, Event};
pub use haproxy::HaProxy;
pub use link::{AfterCut, FaultyLink};
pub use process::{Node, free_port, http_get};
pub use redis::{RedisCluster, RedisOptions, RedisServer, Sentinels};
