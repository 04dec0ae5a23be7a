//! Roomcast's broker over Redis, and nothing else.
//!
//! Reading order: `options` (what users configure) → `state` (what a node has to do, without I/O) → `io` (connections and
//! tasks around it, up to the broker) → `metrics`. `simulation` tests `state` against a simulated Redis.
//!
//! Publishes, topology and Sentinel go through fred. The subscriber connections are our own, on the
//! `redis-protocol` codec: fred hands messages on through a channel that drops them when it is full, does not
//! notice when an idle subscriber connection is dead, and ignores that Redis ended a subscription because its
//! slot moved. On a connection of our own a room's messages and the replies about it also come in one order,
//! which is what makes a repair exact.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types, clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod io;
mod metrics;
mod options;
#[cfg(test)]
mod simulation;
mod state;

pub use io::broker::{RedisBroker, RedisError, check};
pub use metrics::RedisMetrics;
pub use options::{BadRule, HistoryRules, RedisOptions, Retention, check_url};
