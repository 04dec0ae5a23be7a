//! A running call: its outcome, and the tasks that stop with the call.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use roomcast_core::{LocalConnection, TraceContext};
use roomcast_protocol::CallId;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::call::report::{CallReport, Ended};
use crate::end::CancelCause;
use crate::metrics::{MethodMetrics, Metrics, Outcome};

/// The state that a call's driver, its handler and the tasks in its scope share.
#[derive(Debug)]
pub(crate) struct Call {
    /// 0 while the call runs, then a [`CancelCause`].
    cause: AtomicU8,
    pub(crate) cancelled: Notify,
    scope: Mutex<Scope>,
    /// The number of parts of its work that have not ended.
    working: AtomicUsize,
    id: CallId,
    connection: Arc<LocalConnection>,
    method: Arc<MethodMetrics>,
    metrics: Arc<Metrics>,
    started: Instant,
    /// `None` if the end of the call is not reported as a lifecycle event, or after the call has ended.
    report: Mutex<Option<Arc<CallReport>>>,
    /// The context of the call's span, if its trace is sampled.
    trace: OnceLock<Box<TraceContext>>,
}

/// The tasks that stop with a call: the handler's task, and those that it spawned, which are few or
/// none.
#[derive(Debug, Default)]
struct Scope {
    first: Option<AbortHandle>,
    more: Vec<AbortHandle>,
    /// When the call was cancelled. `None` before that, and after the last part of its work has
    /// ended.
    stopping_since: Option<Instant>,
}

impl Call {
    pub(crate) fn new(
        id: CallId,
        connection: &Arc<LocalConnection>,
        method: Arc<MethodMetrics>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cause: AtomicU8::new(0),
            cancelled: Notify::new(),
            scope: Mutex::default(),
            working: AtomicUsize::new(0),
            id,
            connection: Arc::clone(connection),
            method,
            metrics,
            started: Instant::now(),
            report: Mutex::default(),
            trace: OnceLock::new(),
        })
    }

    /// Reports the end of the call as a lifecycle event.
    pub(crate) fn report(&self, report: Arc<CallReport>) {
        *self.report.lock() = Some(report);
    }

    /// Returns the report of the call's end, which waits until the caller drops it. Returns `None` if there
    /// is none.
    pub(crate) fn share_report(&self) -> Option<Arc<CallReport>> {
        self.report.lock().clone()
    }

    /// Counts the call's outcome. Call this only after taking the call from the table, or if it
    /// never entered the table.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.end(outcome, None);
    }

    fn end(&self, outcome: Outcome, cause: Option<CancelCause>) {
        let duration = self.started.elapsed();
        self.method.on_end(outcome, duration);
        tracing::trace!(
            connection = %self.connection.id, user = self.connection.user().map(|user| &**user), call = self.id.0,
            trace_id = self.trace_id(), method = self.method(), outcome = outcome.as_str(),
            cause = cause.map(CancelCause::as_str), ?duration, "a call has ended"
        );
        let report = self.report.lock().take();
        if let Some(report) = report {
            report.set_ended(Ended { outcome, cause, duration });
        }
    }

    /// Stops the call's work and counts it as cancelled.
    pub(crate) fn cancel(self: &Arc<Self>, cause: CancelCause) {
        self.end(Outcome::Cancelled, Some(cause));
        self.stop(cause);
    }

    /// Stops all work in the call's scope, now and later.
    pub(crate) fn stop(self: &Arc<Self>, cause: CancelCause) {
        self.metrics.on_cancelled(cause);
        // A part of the work like the others. Whichever part ends last sees the cause.
        let _work = Work::begin(self);
        let scope = {
            let mut scope = self.scope.lock();
            // The cause is stored before the tasks are aborted, because what they drop, such as the
            // responder, reads it.
            self.cause.store(cause as u8, Ordering::Release);
            std::mem::replace(&mut *scope, Scope { stopping_since: Some(Instant::now()), ..Scope::default() })
        };
        for task in scope.first.iter().chain(&scope.more) {
            task.abort();
        }
        self.cancelled.notify_waiters();
    }

    /// Measures how long the work of a cancelled call has gone on.
    fn on_work_ended(&self) {
        let Some(cause) = self.cause() else { return };
        // Work that begins after the cancellation ends at once, and is not measured again.
        if let Some(since) = self.scope.lock().stopping_since.take() {
            self.metrics.on_stopped(cause, since.elapsed());
        }
    }

    /// Returns the name of the call's method in metrics.
    pub(crate) fn method(&self) -> &str {
        self.method.name()
    }

    /// Sets the context of the call's span.
    pub(crate) fn set_trace(&self, context: Option<Box<TraceContext>>) {
        if let Some(context) = context {
            let _ = self.trace.set(context); // a call has one span
        }
    }

    /// Returns the id of the call's trace, for the log.
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.trace.get().map(|context| context.trace_id())
    }

    /// Returns the call's id on its connection.
    pub(crate) fn id(&self) -> CallId {
        self.id
    }

    /// Returns when the call started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn cause(&self) -> Option<CancelCause> {
        CancelCause::from_bits(self.cause.load(Ordering::Acquire))
    }

    /// Stops a task when the call stops.
    pub(crate) fn adopt(&self, task: AbortHandle) {
        let mut scope = self.scope.lock();
        if self.cause().is_some() {
            drop(scope);
            task.abort();
            return;
        }
        if scope.first.is_none() {
            scope.first = Some(task);
            return;
        }
        if scope.more.len() == scope.more.capacity() {
            scope.more.retain(|task| !task.is_finished());
        }
        scope.more.push(task);
    }
}

/// Held by each part of a call's work. The call counts as in flight while any part holds one.
#[derive(Debug)]
pub(crate) struct Work(Arc<Call>);

impl Work {
    pub(crate) fn begin(call: &Arc<Call>) -> Self {
        if call.working.fetch_add(1, Ordering::AcqRel) == 0 {
            call.metrics.calls_in_flight.inc();
        }
        Self(Arc::clone(call))
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.on_work_ended();
            self.0.metrics.calls_in_flight.dec();
        }
    }
}
