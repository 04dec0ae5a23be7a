//! Roomcast's broker over Redis.
//!
//! Start a [`RedisBroker`] with [`RedisOptions`], and pass it to `Node::new` of the crate
//! `roomcast`. [`check`] tests whether Redis works with your options.
//!
//! # For contributors
//!
//! Read the modules in this order: `options` (the configuration), `state` (what a node does with
//! Redis, without I/O), `io` (connections and tasks around `state`, up to the broker), `metrics`.
//! `simulation` tests `state` against a simulated Redis.
//!
//! Publishes, topology requests and Sentinel use the library fred. The subscriber connections are
//! implemented here, with the codec of `redis-protocol`, because fred's have three defects:
//!
//! * They pass messages on through a channel that drops messages when it is full.
//! * They do not notice when an idle connection is dead.
//! * They ignore that Redis ended a subscription because its slot moved.
//!
//! On the connections of this crate, the messages of a room and the replies about that room arrive
//! in one order. Exact repairs depend on this order.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types, clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod io;
mod metrics;
mod options;
#[cfg(test)]
mod simulation;
mod state;

pub use io::broker::{RedisBroker, RedisError, check};
pub use io::events::RedisEvents;
pub use metrics::RedisMetrics;
pub use options::{BadRule, HistoryRules, MAX_HISTORY_BYTES, MIN_HISTORY_BYTES, RedisOptions, Retention, check_url};
