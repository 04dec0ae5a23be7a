//! Calls of Roomcast's clients, answered by services over HTTP.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]
#![expect(dead_code, reason = "the handler that uses these parts is not there yet")]

mod breaker;
mod response_error;
mod signature;
mod stream;

pub use signature::{SecretError, SigningSecrets};
