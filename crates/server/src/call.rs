//! A running call and its cancellation.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_protocol::CallKey;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::{CallError, Code};
use crate::link::{Link, Permit};
use crate::metrics::{MethodMetrics, Metrics, Outcome};

/// Why a call was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum CancelCause {
    /// The client no longer wants it.
    Reset = 1,
    /// The connection was closed, by either side.
    Closed,
    /// The connection was lost: TCP reset, or no sign of life after a ping.
    Lost,
    /// The node's drain reached its deadline.
    Drain,
    /// It ran longer than a call may.
    Deadline,
    /// The handler panicked; what it had spawned in its scope stops.
    Panic,
}

impl CancelCause {
    const ALL: [Self; 6] = [Self::Reset, Self::Closed, Self::Lost, Self::Drain, Self::Deadline, Self::Panic];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Drain => "drain",
            Self::Deadline => "deadline",
            Self::Panic => "panic",
        }
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == bits)
    }
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The call was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the call was cancelled: {0}")]
pub struct Cancelled(pub CancelCause);

impl From<Cancelled> for CallError {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(Code::Cancelled, cancelled.to_string())
    }
}

/// What a call's parts share: the driver that cancels it, the handler, the tasks in its scope.
#[derive(Debug)]
pub(crate) struct Call {
    /// 0 while it runs, then a [`CancelCause`].
    cause: AtomicU8,
    cancelled: Notify,
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
            self.cause.store(cause as u8, Ordering::Release);
            std::mem::take(&mut *scope)
        };
        for task in scope.first.iter().chain(&scope.more) {
            task.abort();
        }
        self.cancelled.notify_waiters();
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn cause(&self) -> Option<CancelCause> {
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
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.metrics.calls_in_flight.dec();
        }
    }
}

/// The right to answer one call, once. Dropped unused, it answers with an error: no call is left
/// without an outcome.
#[derive(Debug)]
pub(crate) struct Responder {
    link: Arc<Link>,
    key: CallKey,
    work: Work,
    answered: bool,
    _payload: Permit,
}

impl Responder {
    pub(crate) fn new(link: Arc<Link>, key: CallKey, call: &Arc<Call>, payload: Permit) -> Self {
        Self { link, key, work: Work::begin(call), answered: false, _payload: payload }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Answers, unless the call was cancelled: then nothing is sent.
    pub(crate) fn answer(mut self, result: Result<Bytes, CallError>) {
        self.send(result);
    }

    /// As [`answer`](Self::answer), for a handler that did not end by itself: its scope stops too.
    pub(crate) fn fail(mut self, cause: CancelCause, error: CallError) {
        if self.send(Err(error)) {
            self.work.0.stop(cause);
        }
    }

    fn send(&mut self, result: Result<Bytes, CallError>) -> bool {
        self.answered = true;
        let outcome = Outcome::of(&result);
        // The table's lock is held until the Response is queued: a Reset that is processed finds the
        // call either running, and nothing follows, or its Response already on its way.
        let mut calls = self.link.calls.lock();
        let wanted = calls.answer(self.key).is_some();
        if wanted {
            self.link.respond(self.key.id(), result);
        }
        drop(calls);
        if wanted {
            self.work.0.count(outcome);
        }
        wanted
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered && self.work.0.cause().is_none() {
            self.send(Err(CallError::new(Code::Internal, "the handler ended without an answer")));
        }
    }
}

/// A call's cancellation, as its handler sees it. Cheap to clone.
///
/// A handler's future is dropped by itself at its next await when the call is cancelled; this is for
/// what the handler starts beside it, and for work that does not await.
///
/// ```
/// use roomcast::{Cancel, CallError, Cancelled};
///
/// async fn primes(cancel: Cancel) -> Result<String, CallError> {
///     let count = cancel.spawn_blocking(|cancel| {
///         let mut found = 0;
///         for chunk in 0..1000 {
///             if let Some(cause) = cancel.cause() {
///                 return Err(Cancelled(cause)); // asked between chunks
///             }
///             found += chunk % 2;
///         }
///         Ok(found)
///     });
///     let count = count.await.map_err(|error| CallError::new(roomcast::Code::Internal, error.to_string()))??;
///     Ok(count.to_string())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Cancel {
    call: Arc<Call>,
}

impl Cancel {
    pub(crate) fn new(call: &Arc<Call>) -> Self {
        Self { call: Arc::clone(call) }
    }

    /// Whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cause().is_some()
    }

    /// Why the call was cancelled; `None` while it was not. Clean-up code (`Drop`) can ask too.
    pub fn cause(&self) -> Option<CancelCause> {
        self.call.cause()
    }

    /// Waits until the call is cancelled; for ever if it never is. Cancel safe.
    pub async fn reset(&self) -> CancelCause {
        loop {
            let cancelled = self.call.cancelled.notified();
            if let Some(cause) = self.cause() {
                return cause;
            }
            cancelled.await;
        }
    }

    /// Runs a future until it is done or the call is cancelled, whichever comes first.
    ///
    /// # Errors
    /// [`Cancelled`] if the call was; the future is then dropped.
    pub async fn abort_on_reset<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        tokio::select! {
            biased;
            cause = self.reset() => Err(Cancelled(cause)),
            output = future => Ok(output),
        }
    }

    /// Spawns a task in the call's scope: it stops, at its next await, when the call is cancelled. The
    /// call counts as in flight until the task has ended. Once the call is answered it can no longer
    /// be cancelled, and the task runs to its end.
    pub fn spawn_and_abort_on_reset<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let work = Work::begin(&self.call);
        let task = tokio::spawn(async move {
            let output = future.await;
            drop(work);
            output
        });
        self.call.adopt(task.abort_handle());
        task
    }

    /// Runs blocking or CPU-bound work on a thread of its own. It can't be stopped from outside: it
    /// gets this handle, to ask between chunks whether it [`is_cancelled`](Self::is_cancelled).
    /// The call counts as in flight until the work has returned.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce(&Self) -> T + Send + 'static,
        T: Send + 'static,
    {
        let cancel = self.clone();
        let counted = Work::begin(&self.call);
        let task = tokio::task::spawn_blocking(move || {
            let output = work(&cancel);
            drop(counted);
            output
        });
        self.call.adopt(task.abort_handle());
        task
    }
}
