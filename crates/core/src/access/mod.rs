//! Who a client is and what it may do, as values without I/O and without a clock.
//!
//! Reading order: `pattern` (names of rooms and methods) → `claims` (values that fill in a pattern)
//! → `grants` (rights on names) → `identity` (a client with its grants) → `expiry` (when its
//! credential ends) → `connection` (what one connection may do now) → `revocation` (who is
//! no longer accepted) → `revocations` (the ones that a node enforces). `room_patterns`
//! selects rooms, `call_pattern` selects methods, and `shared_grants` saves memory.

pub(crate) mod call_pattern;
pub(crate) mod claims;
pub(crate) mod connection;
pub(crate) mod expiry;
pub(crate) mod grants;
pub(crate) mod identity;
pub(crate) mod pattern;
pub(crate) mod revocation;
pub(crate) mod revocations;
pub(crate) mod room_patterns;
pub(crate) mod shared_grants;
