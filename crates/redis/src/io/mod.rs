//! Connections, tasks and time around `state`. Imports `state`, `metrics` and `options`. The crate exports its `broker`.
//!
//! A publish enters at `broker`, and goes through `publisher` and `commands` to the script in Redis (`state/stored/publish.lua`). What Redis sends
//! enters at `connection`, and goes through `subscriber` back to `broker`, where the hub takes it.
//!
//! Reading order: `commands` (scripts and topology, through fred) → `publisher` (publishes) →
//! `connection` and `links` (one subscriber connection; those to all servers) → `topology_requests` → `subscriber` (the
//! task around them) → `broker` (all of it as a `Broker`).

pub(crate) mod broker;
pub(crate) mod commands;
pub(crate) mod connection;
mod links;
mod publisher;
mod subscriber;
mod topology_requests;
