//! Calls in flight: their table, their outcome, and their cancellation.
//!
//! Imports errors, ends and metrics only. A call enters by `calls` and leaves it once, with its outcome: answered or
//! cancelled. `running` stops what belongs to it; handlers see that through `cancel`.

pub(crate) mod calls;
pub(crate) mod cancel;
pub(crate) mod running;
