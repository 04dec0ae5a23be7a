//! What a node has to do with Redis, as values: no I/O, no tasks, and time is an argument, so tests can try every order
//! of events. Imports nothing of this crate but `metrics`.
//!
//! A publish enters at [`queue::Queue::push`] and leaves as a batch (`Queue::next_batch`); `attempts` decides where it
//! is sent and how often. What Redis sends enters at [`subscriptions::Subscriptions::on_incoming`]. Events leave through
//! `Subscriptions::take_events`, commands through `take_output`.
//!
//! Reading order: `keys` (where a room is kept) → `message` and `seal` (what is sent) → `stored` (what Redis keeps) →
//! `queue` and `attempts` (publishes) → `position` (what a reader has missed, and what it has had already) → `room`,
//! `resp` and `session` (the requests to one server, and its replies) → `delivery` (what becomes of messages) →
//! `subscriptions` (which rooms are read from which server) → `probes` (which servers work). `topology` has which
//! server owns which room.

pub(crate) mod attempts;
pub(crate) mod delivery;
pub(crate) mod keys;
pub(crate) mod message;
pub(crate) mod position;
pub(crate) mod probes;
pub(crate) mod queue;
pub(crate) mod resp;
pub(crate) mod room;
pub(crate) mod seal;
pub(crate) mod session;
pub(crate) mod stored;
pub(crate) mod subscriptions;
pub(crate) mod topology;
