//! Calls in flight: their table, their outcome, and their cancellation.
//!
//! This module imports only errors, ends and metrics. A call enters through `calls`, and leaves it
//! with its outcome: answered or cancelled. `running` stops the call's work, and handlers see the
//! cancellation through `cancel`. `report` is the lifecycle event of the end, which `grace` delays.

pub(crate) mod calls;
pub(crate) mod cancel;
pub(crate) mod grace;
pub(crate) mod report;
pub(crate) mod running;
