//! Roomcast's broker over Redis, and nothing else.
//!
//! Reading order: `keys` (where a room is kept) → `publish.lua`, `message` and `seal` (what is sent) → `queue` and
//! `attempts` (when and how often, without I/O) → `publisher` and `commands` (the I/O around it) → `position` (what a
//! reader has missed) → `room`, `session` and `subscriptions` (which server is asked for what: the state machine, without
//! I/O) → `connection` and `subscriber` (the I/O around it) → `broker`.
//!
//! Publishes, topology and Sentinel go through fred. The subscriber connections are our own, on the
//! `redis-protocol` codec: fred hands messages on through a channel that drops them when it is full, does not
//! notice when an idle subscriber connection is dead, and ignores that Redis ended a subscription because its
//! slot moved. On a connection of our own a room's messages and the answers to questions about it come in
//! one order, too, which is what makes a repair exact.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempts;
mod broker;
mod commands;
mod connection;
mod keys;
mod link;
mod message;
mod metrics;
mod options;
mod position;
mod probes;
mod publisher;
mod queue;
mod resp;
mod room;
mod seal;
mod session;
#[cfg(test)]
mod simulation;
mod subscriber;
mod subscriptions;
mod topology;

pub use broker::{RedisBroker, RedisError, check};
pub use metrics::RedisMetrics;
pub use options::{BadRule, HistoryRules, RedisOptions, Retention, check_url};
