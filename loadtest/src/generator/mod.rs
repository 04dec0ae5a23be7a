//! A generator process: one thread, one epoll loop, many connections.
//!
//! In: `control` commands on standard input, from the coordinator. `worker` is the loop; `activities` take planned times from
//! `pacer` and act through `fleet`, which owns the connections. What comes back goes to `clients`, which match responses with
//! calls, and to `rooms`, which check events. Out: `control` reports on standard output, at the end all `findings`.
//! Imports `client`, `ledger`, `results`, `scenario` and `clock`; never `coordinator` or `report`.

mod activities;
mod calls;
mod clients;
mod control;
mod findings;
mod fleet;
mod pacer;
mod placement;
mod recorder;
mod rooms;
mod setup;
mod worker;

pub(crate) use control::{Assignment, Command, Findings, Progress, Report};
pub(crate) use pacer::Schedule;
pub(crate) use worker::run;
