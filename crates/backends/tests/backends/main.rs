//! Backends over real sockets: calls, cancellation and limits, and backends that break HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod calls;
mod cancel_grace;
mod cancel_notices;
mod connections;
mod endings;
mod events;
mod fixture;
mod hooks;
