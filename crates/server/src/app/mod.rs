//! What applications use: the router, and what its handlers take and return.
//!
//! This module imports everything else in the crate. An upgrade request enters through `upgrade`,
//! and `opening` decides whether it becomes a connection. A client's frame enters through `lifecycle`,
//! which finds its handler in `routes`. A handler's result leaves through `connection::responder`, or
//! through `ConnectionContext::answer_at_once`. An event to the handler's own client leaves through
//! `socket`, and a client's publish through `publishing`.

pub(crate) mod authorizer;
pub(crate) mod context;
pub(crate) mod extract;
pub(crate) mod handler;
pub(crate) mod handling;
pub(crate) mod late;
pub(crate) mod lifecycle;
pub(crate) mod members;
pub(crate) mod notifications;
pub(crate) mod opening;
pub(crate) mod publishing;
pub(crate) mod rooms;
pub(crate) mod router;
mod router_rooms;
pub(crate) mod routes;
pub(crate) mod socket;
pub(crate) mod spans;
pub(crate) mod traces;
pub(crate) mod upgrade;
