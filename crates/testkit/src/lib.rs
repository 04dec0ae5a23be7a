//! Tests a broker, and provides fixtures for Roomcast's own tests. This crate is never published.
//!
//! If you write a broker of your own, run the contract suite, [`broker_contract::check`], in its
//! tests. The suite checks what every broker promises. The guide "Write a broker"
//! (`docs/guides/brokers.md`) describes the promises.
//!
//! ```
//! use std::sync::Arc;
//! use roomcast::{Broker, MemoryBus};
//! use roomcast_testkit::broker_contract;
//!
//! # #[tokio::main] async fn main() {
//! broker_contract::check(async |count| {
//!     let bus = MemoryBus::new();
//!     (0..count).map(|_| Arc::new(bus.attach()) as Arc<dyn Broker>).collect()
//! })
//! .await;
//! # }
//! ```
//!
//! The other items are fixtures. When a fixture is dropped, its processes end and its files are
//! removed.
//!
//! * [`Client`] is a client over an independent WebSocket library.
//! * [`Node`] runs `roomcast serve` in a process of its own.
//! * [`RedisServer`], [`RedisCluster`] and [`Sentinels`] run real Redis.
//! * [`HaProxy`] balances connections over nodes.
//! * [`JwksServer`] publishes the keys of an issuer, and can fail in several ways.
//! * [`FaultyLink`] is a network between a node and Redis that a test can slow down or cut.

pub mod broker_contract;
mod certificate;
mod client;
mod haproxy;
mod jwks_server;
mod link;
mod process;
mod program;
mod redis;

pub use client::{Client, ClientError, Event};
pub use haproxy::HaProxy;
pub use jwks_server::{JwksReply, JwksServer};
pub use link::{AfterCut, FaultyLink};
pub use process::{Node, free_port, http_get};
pub use redis::{RedisCluster, RedisOptions, RedisServer, Sentinels};
