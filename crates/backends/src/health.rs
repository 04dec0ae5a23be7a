//! How well a backend works: counts how its requests end, and stops sending them while it fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::StatusCode;
use parking_lot::Mutex;
use roomcast::trace::context_of;
use roomcast::{CallError, Code};
use serde_json::json;
use tracing::Span;
use tracing::field::display;

use crate::admission::Slot;
use crate::breaker::{self, Breaker, BreakerState, Pass};
use crate::call::ServedCall;
use crate::failure::Failure;
use crate::metrics::{OneBackend, Outcome};

/// What is known about the health of a backend.
#[derive(Debug)]
pub(crate) struct Health {
    name: String,
    breaker: Mutex<Breaker>,
    pub(crate) metrics: OneBackend,
    /// Whether the last request that showed anything about the backend has failed.
    is_failing: AtomicBool,
}

impl Health {
    pub(crate) fn new(name: &str, metrics: OneBackend) -> Self {
        let breaker = Mutex::new(Breaker::new(Instant::now()));
        Self { name: name.to_owned(), breaker, metrics, is_failing: AtomicBool::new(false) }
    }

    /// Begins a request, which may be for a call.
    ///
    /// # Errors
    /// Returns a failure if the breaker is open.
    pub(crate) fn begin<'a>(
        &'a self,
        slot: Option<Slot>,
        call: Option<ServedCall<'a>>,
    ) -> Result<Exchange<'a>, Failure> {
        let pass = self.breaker.lock().admit(Instant::now()).map_err(|wait| {
            self.metrics.count(Outcome::BreakerOpen);
            let error = CallError::new(Code::Unavailable, "the backend fails, and is not called for now");
            let error = error.with_details(json!({ "retry_after_ms": wait.as_millis() as u64 }));
            Failure::not_sent(Outcome::BreakerOpen, error)
        })?;
        let in_flight = Counted::new(&self.metrics.in_flight);
        Ok(Exchange { health: self, call, pass, outcome: Outcome::Cancelled, _slot: slot, _in_flight: in_flight })
    }
}

impl Outcome {
    /// Returns what the outcome shows about the health of the backend.
    fn health(self) -> breaker::Outcome {
        match self {
            // A client may know how to make a backend respond with too much. The backend itself works.
            Self::Ok | Self::Rejected | Self::Invalid => breaker::Outcome::Success,
            Self::Failed | Self::Unreachable | Self::Timeout => breaker::Outcome::Failure,
            Self::Cancelled | Self::BreakerOpen | Self::NoSlot => breaker::Outcome::Neither,
        }
    }
}

/// A request in flight. If it is dropped, its call was cancelled.
pub(crate) struct Exchange<'a> {
    health: &'a Health,
    call: Option<ServedCall<'a>>,
    pass: Pass,
    outcome: Outcome,
    _slot: Option<Slot>,
    _in_flight: Counted<'a>,
}

impl Exchange<'_> {
    /// The head of the response has arrived. If the breaker is open, it closes unless the backend has
    /// failed, because the body of a stream may take any time.
    pub(crate) fn answered(&self, status: StatusCode) {
        if self.pass.is_probe() && !status.is_server_error() {
            self.record(breaker::Outcome::Success);
        }
    }

    fn record(&self, outcome: breaker::Outcome) {
        let Health { name, breaker, metrics, .. } = self.health;
        let now = Instant::now();
        let mut breaker = breaker.lock();
        let before = breaker.state(now);
        breaker.record(&self.pass, outcome, now);
        let after = breaker.state(now);
        drop(breaker);
        let [was_open, is_open] = [before, after].map(|state| i64::from(state != BreakerState::Closed));
        metrics.breakers_open.add(is_open - was_open);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(backend = name, "a backend fails; it is not called for 5 s");
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => {
                tracing::info!(backend = name, "a backend works again");
            }
            _ => {}
        }
    }

    /// Returns whether the request has outlived its call. Then its result shows nothing about the backend,
    /// which may have stopped the work.
    fn is_cancelled(&self) -> bool {
        self.call.is_some_and(|call| call.is_cancelled())
    }

    pub(crate) fn succeed(mut self) {
        if self.is_cancelled() {
            return;
        }
        self.outcome = Outcome::Ok;
        self.health.is_failing.store(false, Ordering::Relaxed);
    }

    /// Ends with a failure, which is logged.
    pub(crate) fn end(mut self, span: &Span, failure: Failure) -> Failure {
        if self.is_cancelled() {
            return failure;
        }
        let call = self.call;
        let Failure { outcome, reason, .. } = &failure;
        self.outcome = *outcome;
        span.record("error.type", outcome.as_str()).record("otel.status_code", "ERROR");
        let backend = &*self.health.name;
        let (connection, user) = (call.map(|call| display(call.connection)), call.and_then(|call| call.user));
        let (call, trace_id) = (call.map(|call| call.id), context_of(span).map(|context| context.trace_id()));
        let is_failure = outcome.health() == breaker::Outcome::Failure;
        if is_failure && !self.health.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                backend,
                connection,
                user,
                call,
                trace_id,
                error = reason,
                "a request to a backend failed; later ones are logged at debug"
            );
        } else {
            tracing::debug!(backend, connection, user, call, trace_id, error = reason, "a request to a backend failed");
        }
        failure
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.health.metrics.count(self.outcome);
        self.record(self.outcome.health());
    }
}

/// Counts something until it is dropped.
pub(crate) struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    pub(crate) fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
