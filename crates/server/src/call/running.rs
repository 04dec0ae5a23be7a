//! A running call: its outcome, and the tasks that stop with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::end::CancelCause;
use crate::metrics::{MethodMetrics, Metrics, Outcome};

/// What a call's parts share: the driver that cancels it, the handler, the tasks in its scope.
#[derive(Debug)]
pub(crate) struct Call {
    /// 0 while it runs, then a [`CancelCause`].
    cause: AtomicU8,
    pub(crate) cancelled: Notify,
    scope: Mutex<Scope>,
    /// Parts of its work that have not ended.
    working: AtomicUsize,
    method: Arc<MethodMetrics>,
    metrics: Arc<Metrics>,
    started: Instant,
}

/// The tasks to stop with a call: its handler's, and what that spawned, which is mostly nothing.
#[derive(Debug, Default)]
struct Scope {
    first: Option<AbortHandle>,
    more: Vec<AbortHandle>,
}

impl Call {
    pub(crate) fn new(method: Arc<MethodMetrics>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            cause: AtomicU8::new(0),
            cancelled: Notify::new(),
            scope: Mutex::default(),
            working: AtomicUsize::new(0),
            method,
            metrics,
            started: Instant::now(),
        })
    }

    /// Counts the call's outcome. For the one who took it from the table, or never entered it.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.method.on_end(outcome, self.started.elapsed());
    }

    /// Stops the call's work and counts it as cancelled.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        self.count(Outcome::Cancelled);
        self.stop(cause);
    }

    /// Stops all work in the call's scope, now and later.
    pub(crate) fn stop(&self, cause: CancelCause) {
        self.metrics.on_cancelled(cause);
        let scope = {
            let mut scope = self.scope.lock();
            // Before the tasks are aborted: what they drop, such as the responder, looks at the cause.
            self.cause.store(cause as u8, Ordering::Release);
            std::mem::take(&mut *scope)
        };
        for task in scope.first.iter().chain(&scope.more) {
            task.abort();
        }
        self.cancelled.notify_waiters();
    }

    /// The name of its method in metrics.
    pub(crate) fn method(&self) -> &str {
        self.method.name()
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn cause(&self) -> Option<CancelCause> {
        CancelCause::from_bits(self.cause.load(Ordering::Acquire))
    }

    /// Makes a task stop with the call.
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

/// Held by each part of a call's work; while one is, the call counts as in flight.
#[derive(Debug)]
pub(crate) struct Work(Arc<Call>);

impl Work {
    pub(crate) fn begin(call: &Arc<Call>) -> Self {
        if call.working.fetch_add(1, Ordering::AcqRel) == 0 {
            call.metrics.calls_in_flight.inc();
        }
        Self(Arc::clone(call))
    }

    pub(crate) fn call(&self) -> &Call {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.metrics.calls_in_flight.dec();
        }
    }
}
