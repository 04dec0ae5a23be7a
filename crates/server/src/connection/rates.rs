//! How often a connection's client may do each kind of thing.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_protocol::{CloseCode, CloseFrame};
use serde_json::json;
use thiserror::Error;

use crate::error::{CallError, Code};
use crate::options::RateLimits;
use crate::rate::{Action, Bucket, RateLimit};

/// A client does something too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("rate limit reached ({name}: {limit}); try again in {} ms", self.retry_after_ms())]
pub(crate) struct TooOften {
    name: &'static str,
    limit: RateLimit,
    retry_after: Duration,
}

impl TooOften {
    /// Returns the time after which the action is allowed, rounded up.
    fn retry_after_ms(&self) -> u64 {
        u64::try_from(self.retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Returns the Close for a client to which there is no reply.
    pub(crate) fn close_frame(self) -> CloseFrame {
        CloseFrame::new(CloseCode::POLICY_VIOLATION, self.to_string())
    }
}

impl From<TooOften> for CallError {
    fn from(error: TooOften) -> Self {
        let details = json!({ "limit": error.name, "retry_after_ms": error.retry_after_ms() });
        Self::new(Code::ResourceExhausted, error.to_string()).with_details(details)
    }
}

/// The buckets of one connection. Their limits are in the connection's options.
#[derive(Debug)]
pub(crate) struct Rates {
    opened: Instant,
    buckets: Mutex<[Bucket; Action::ALL.len()]>,
}

impl Rates {
    pub(crate) fn new(now: Instant) -> Self {
        Self { opened: now, buckets: Mutex::default() }
    }

    /// Counts an action.
    ///
    /// # Errors
    /// Returns [`TooOften`] if the action must not happen now.
    pub(crate) fn take(&self, action: Action, limits: &RateLimits, now: Instant) -> Result<(), TooOften> {
        let limit = limits.of(action);
        let taken = self.buckets.lock()[action as usize].take(limit, now.saturating_duration_since(self.opened));
        taken.map_err(|retry_after| TooOften { name: action.limit_name(), limit, retry_after })
    }
}
