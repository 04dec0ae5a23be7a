//! What each member of a room must get, and what it got: pure, without clock or sockets.
//!
//! `stamp` is what each event carries, so that a receiver knows which one it is and whether its bytes have changed. `room`
//! compares what members receive with what was published: lost, duplicated, reordered.
//! Imports `results` for the counts, and `scenario` for the smallest payload.

mod room;
mod stamp;
#[cfg(test)]
mod tests;

pub(crate) use room::{Membership, Published, Room};
pub(crate) use stamp::{EVENT, Read, Stamp};
