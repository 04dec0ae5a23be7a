//! What a node has to do with Redis, as values: no I/O, no tasks, and time is an argument, so tests can try every order
//! of events. Imports nothing of this crate but `metrics`.
//!
//! A publish enters at [`publish_queue::PublishQueue::push`] and leaves as a batch (`PublishQueue::next_batch`); `attempts` decides where it
//! is sent and how often. What Redis sends enters at [`subscriptions::Subscriptions::on_incoming`]. Events leave through
//! `Subscriptions::take_events`, commands through `take_output`.
//!
//! How a gap is repaired: `position` finds it in a live message (or `subscriptions`, after an interruption) and returns
//! the offset to repair from; `subscriptions` queues a `Request::Repair`; `session` sends it, with the script in `stored`;
//! the reply comes back to `position`, which returns what was missed, then what came meanwhile, and counts what is lost.
//!
//! Reading order: `keys` (where a room is kept) → `message` and `seal` (what is sent) → `stored` (what Redis keeps) →
//! `publish_queue` and `attempts` (publishes) → `position` (what a reader has missed, and what it has had already) → `room`,
//! `resp` and `session` (the requests to one server, and its replies) → `delivery` (what becomes of messages) →
//! `subscriptions` (which rooms are read from which server) → `probes` (which servers work). `topology` has which
//! server owns which room.

pub(crate) mod attempts;
pub(crate) mod delivery;
pub(crate) mod keys;
pub(crate) mod message;
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
