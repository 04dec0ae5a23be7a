//! What applications write: a router of handlers, and what their handlers use.
//!
//! Imports everything else in this crate. A request to upgrade enters by `upgrade`, a client's frame by `lifecycle`,
//! which finds its handler in `routes`. What a handler returns leaves by `connection::responder`, or at once by
//! `ConnectionContext::answer_at_once`; an event to its own client leaves by `socket`, and a client's publish by `publishing`.

pub(crate) mod context;
pub(crate) mod extract;
pub(crate) mod handler;
pub(crate) mod handling;
pub(crate) mod lifecycle;
pub(crate) mod notifications;
pub(crate) mod publishing;
pub(crate) mod rooms;
pub(crate) mod router;
pub(crate) mod routes;
pub(crate) mod socket;
pub(crate) mod spans;
pub(crate) mod upgrade;
