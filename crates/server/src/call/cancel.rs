//! The handle to a call's cancellation that handlers use.

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;
use tokio::task::JoinHandle;

use crate::call::running::{Call, Work};
use crate::end::CancelCause;
use crate::error::{CallError, Code};

/// The error of a call that was cancelled. See [`Cancel`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the call was cancelled: {0}")]
pub struct Cancelled(pub CancelCause);

impl From<Cancelled> for CallError {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(Code::Cancelled, cancelled.to_string())
    }
}

/// A handle to a call's cancellation, for the call's handler. It is cheap to clone.
///
/// When a call is cancelled, its handler's future is dropped at its next await, so most handlers
/// need no code for this. Use the handle for tasks that the handler spawns, and for work that does
/// not await.
///
/// ```
/// use roomcast::{CallError, Cancel, Cancelled};
///
/// async fn primes(cancel: Cancel) -> Result<String, CallError> {
///     let count = cancel.spawn_blocking(|cancel| {
///         let mut found = 0;
///         for chunk in 0..1000 {
///             if let Some(cause) = cancel.cause() {
///                 return Err(Cancelled(cause)); // checked between chunks
///             }
///             found += chunk % 2;
///         }
///         Ok(found)
///     });
///     let count = count.await??;
///     Ok(count.to_string())
/// }
/// ```
///
/// Only calls can be cancelled. The handler of a notification therefore cannot take this handle:
///
/// ```compile_fail,E0277
/// # use roomcast::{Cancel, Node, Options, Router};
/// let router = Router::new(Node::embedded(Options::default())).notify("log", async |_: Cancel| ());
/// ```
#[derive(Debug, Clone)]
pub struct Cancel {
    call: Arc<Call>,
}

impl Cancel {
    pub(crate) fn new(call: &Arc<Call>) -> Self {
        Self { call: Arc::clone(call) }
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Returns whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cause().is_some()
    }

    /// Returns why the call was cancelled, or `None` if it was not. You can also use this in
    /// clean-up code in `Drop`.
    pub fn cause(&self) -> Option<CancelCause> {
        self.call.cause()
    }

    /// Waits until the call is cancelled, for any [cause](CancelCause), such as a Reset, a deadline
    /// or the end of the connection. If the call is never cancelled, this waits forever. The name
    /// comes from [the tutorial](crate#the-tutorial).
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn reset(&self) -> CancelCause {
        loop {
            let cancelled = self.call.cancelled.notified();
            if let Some(cause) = self.cause() {
                return cause;
            }
            cancelled.await;
        }
    }

    /// Runs a future until it completes or the call is cancelled for any [cause](CancelCause),
    /// whichever comes first.
    ///
    /// # Errors
    /// Returns [`Cancelled`] if the call was cancelled. The future is then dropped.
    ///
    /// # Cancel safety
    /// This is cancel safe if the future is.
    pub async fn abort_on_reset<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        tokio::select! {
            biased;
            cause = self.reset() => Err(Cancelled(cause)),
            output = future => Ok(output),
        }
    }

    /// Spawns a task in the call's scope. When the call is cancelled, for any [cause](CancelCause),
    /// the task stops at its next await. The call counts as in flight until the task has ended.
    /// Once the call is answered, it can no longer be cancelled, and the task runs to its end.
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

    /// Runs blocking or CPU-bound work on a thread of tokio's blocking pool. Nothing can stop such
    /// work from outside. It therefore receives this handle, and should regularly check whether the
    /// call [`is_cancelled`](Self::is_cancelled). The call counts as in flight until the work
    /// returns. If the call is cancelled before the work starts, the work never runs.
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
