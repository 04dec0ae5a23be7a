//! What a node does with Redis. There is no I/O and there are no tasks here, and time is an
//! argument, so tests can try every order of events. This module imports only `metrics` from this
//! crate.
//!
//! A publish enters through [`publish_queue::PublishQueue::push`] and leaves in a batch
//! (`PublishQueue::next_batch`). `attempts` decides to which server the batch is sent, and how
//! often. What Redis sends enters through [`subscriptions::Subscriptions::on_incoming`]. Events
//! leave through `Subscriptions::take_events`, and commands through `take_output`.
//!
//! A gap is repaired in these steps:
//!
//! 1. `position` finds the gap in a live message, or `subscriptions` does after an interruption.
//!    The result is the offset to repair from.
//! 2. `subscriptions` queues a `Request::Repair`, and `session` sends it with the script in
//!    `stored`.
//! 3. The reply comes back to `position`. It returns the missing events, then those that arrived
//!    meanwhile, and counts the lost ones.
//!
//! Read the modules in this order: `keys` (where a room is kept), `message` and `seal` (what is
//! sent), `stored` (what Redis keeps), `publish_queue`, `attempts` and `placement` (publishes), `position`
//! (which events a reader has missed, and which it has already read), `room`, `resp` and `session`
//! (the requests to a server, and its replies), `delivery` (what happens to messages),
//! `subscriptions` (which rooms are read from which server), `probes` (which servers work).
//! `topology` tracks which server owns which room.

pub(crate) mod attempts;
pub(crate) mod delivery;
pub(crate) mod extension;
pub(crate) mod keys;
pub(crate) mod message;
pub(crate) mod placement;
pub(crate) mod position;
pub(crate) mod probes;
pub(crate) mod publish_queue;
pub(crate) mod resp;
pub(crate) mod room;
pub(crate) mod seal;
pub(crate) mod session;
pub(crate) mod stored;
pub(crate) mod subscriptions;
pub(crate) mod topology;
