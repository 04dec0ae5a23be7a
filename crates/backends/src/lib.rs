//! Calls of Roomcast's clients, answered by services over HTTP.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]
#![cfg_attr(not(test), expect(dead_code, reason = "the handler that uses these parts is not there yet"))]

mod breaker;
mod connector;
mod events;
mod in_flight;
mod response_error;
mod signature;
mod stream;

pub use events::{EventDelivery, HOOK_PREFIX, InvalidEventUrl};
pub use signature::{SecretError, SigningSecrets};
