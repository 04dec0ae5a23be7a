//! Why a request to a backend has no result.

use roomcast::{CallError, Code};

use crate::metrics::Outcome;

/// Why a request has no result: what is counted, what is logged, and what a client learns.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    /// For the log. It may contain what the backend has written.
    pub(crate) reason: String,
    /// For a client.
    pub(crate) error: CallError,
}

impl Failure {
    /// The request was not sent.
    pub(crate) fn not_sent(outcome: Outcome, error: CallError) -> Self {
        Self { outcome, reason: error.to_string(), error }
    }

    /// The backend did not respond or continue in time.
    pub(crate) fn timeout(message: String) -> Self {
        Self { outcome: Outcome::Timeout, error: CallError::new(Code::DeadlineExceeded, &*message), reason: message }
    }
}
