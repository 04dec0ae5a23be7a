//! Running a handler: its work as a future, and its panic kept to itself.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::BoxFuture;

use crate::error::{CallError, panicked};

/// A handler's work.
pub(crate) type Handling = BoxFuture<'static, Result<Bytes, CallError>>;

/// What became of a handler.
pub(crate) enum Handled {
    Returned(Result<Bytes, CallError>),
    Panicked,
}

impl Handled {
    /// The reply to the client.
    pub(crate) fn into_result(self) -> Result<Bytes, CallError> {
        match self {
            Self::Returned(result) => result,
            Self::Panicked => Err(panicked()),
        }
    }
}

/// Keeps a handler's panic to itself: nobody else is affected.
pub(crate) async fn catch_panic(handling: Handling) -> Handled {
    AssertUnwindSafe(handling).catch_unwind().await.map_or(Handled::Panicked, Handled::Returned)
}

/// Whether a handler is begun at once, on the task that found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It runs up to its first wait.
    Now,
    /// Nothing of it has run.
    Later,
}

/// How far a handler has come.
pub(crate) enum Begun {
    Done(Handled),
    Waits(Handling),
}

/// Makes a handler's work, and begins it or not.
pub(crate) fn begin(start: Start, handler: impl FnOnce() -> Handling) -> Begun {
    let begin = || {
        let mut handling = handler();
        let result = match start {
            Start::Now => (&mut handling).now_or_never(),
            Start::Later => None,
        };
        result.map_or(Begun::Waits(handling), |result| Begun::Done(Handled::Returned(result)))
    };
    std::panic::catch_unwind(AssertUnwindSafe(begin)).unwrap_or(Begun::Done(Handled::Panicked))
}
