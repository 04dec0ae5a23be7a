//! A simulation of Redis from a subscriber's point of view, without sockets and with time as a
//! number. It tests the subscriber's state machine when servers fail, lose data that they have
//! already sent, and give slots away.
//!
//! Read the modules in this order: `script` (`publish.lua` on the keys of one room), `servers`
//! (commands, connections and faults), `world` (a node's subscriptions among the servers, and what
//! must always hold), `interruptions`, `slots` and `any_order` (the tests), `publishes` (the path
//! of publishes to a server), `real` (compares the model with a real server), `readers` and
//! `messages` (tests that need no servers).

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
