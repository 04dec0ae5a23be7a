//! Running a handler: its work as a future, and its panic kept to itself.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::BoxFuture;

use crate::error::{CallError, Code};

/// A handler's work on one request.
pub(crate) type Handling = BoxFuture<'static, Result<Bytes, CallError>>;

/// What became of a handler: its result, or nothing because it panicked.
pub(crate) type Handled = Option<Result<Bytes, CallError>>;

/// Keeps a handler's panic to itself: nobody else is affected.
pub(crate) async fn catch_panic(handling: Handling) -> Handled {
    AssertUnwindSafe(handling).catch_unwind().await.ok()
}

/// What the client of a handler that panicked is told.
pub(crate) fn panicked() -> CallError {
    CallError::new(Code::Internal, "the handler panicked")
}

/// What the client of a handler that reached its deadline is told.
pub(crate) fn took_too_long(timeout: Duration) -> CallError {
    CallError::new(Code::DeadlineExceeded, format!("the handler took longer than {timeout:?}"))
}

/// How far a handler has come.
pub(crate) enum Begun {
    Done(Handled),
    Waits(Handling),
}

/// Begins a handler and runs it up to its first wait.
pub(crate) fn begin(handler: impl FnOnce() -> Handling) -> Begun {
    let first_poll = || {
        let mut handling = handler();
        match (&mut handling).now_or_never() {
            Some(result) => Begun::Done(Some(result)),
            None => Begun::Waits(handling),
        }
    };
    std::panic::catch_unwind(AssertUnwindSafe(first_poll)).unwrap_or(Begun::Done(None))
}
