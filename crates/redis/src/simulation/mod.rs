//! Redis as a subscriber sees it, without sockets and with time as a number: what the subscriber's state
//! machine does when servers fail, fall back behind what they had sent, and give slots away.
//!
//! Reading order: `script` (publish.lua on one room's keys) → `servers` (commands, connections, faults) →
//! `world` (a node's subscriptions around it, and what must hold) → `interruptions`, `slots`, `any_order`
//! (the tests) → `publishes` (the way to a server) → `real` (the model against a server) → `readers`, `messages`
//! (what needs no servers).

mod any_order;
mod interruptions;
mod messages;
mod publishes;
mod readers;
mod real;
mod script;
mod servers;
mod slots;
mod world;
