//! Connections, tasks and time around `state`. This module imports `state`, `metrics` and
//! `options`. The crate exports its `broker`.
//!
//! A publish enters through `broker`. It passes through `publisher` and `commands` to the script in
//! Redis (`state/stored/publish.lua`). What Redis sends enters through `connection`. It passes
//! through `subscriber` back to `broker`, from which the hub takes it.
//!
//! Read the modules in this order: `commands` (scripts and topology, with fred), `publisher`
//! (publishes), `connection` (a subscriber connection), `links` (the connections to all servers),
//! `topology_requests`, `subscriber` (the task that uses these), `scripts` (single scripts), `ledger` and
//! `events` (which use them), `broker` (all of them as a `Broker`).

pub(crate) mod broker;
pub(crate) mod commands;
pub(crate) mod connection;
pub(crate) mod events;
mod ledger;
mod links;
mod publisher;
mod scripts;
mod subscriber;
mod topology_requests;
