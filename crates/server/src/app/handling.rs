//! Runs a handler as a future, and contains its panic.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::BoxFuture;

use crate::error::{CallError, panicked};

/// A handler's work.
pub(crate) type Handling = BoxFuture<'static, Result<Bytes, CallError>>;

/// How a handler ended.
pub(crate) enum Handled {
    Returned(Result<Bytes, CallError>),
    Panicked,
}

impl Handled {
    /// Returns the reply to the client.
    pub(crate) fn into_result(self) -> Result<Bytes, CallError> {
        match self {
            Self::Returned(result) => result,
            Self::Panicked => Err(panicked()),
        }
    }
}

/// Contains a handler's panic, so that it affects nothing else.
pub(crate) async fn catch_panic(handling: Handling) -> Handled {
    AssertUnwindSafe(handling).catch_unwind().await.map_or(Handled::Panicked, Handled::Returned)
}

/// Whether a handler starts at once, on the connection's own task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The handler runs up to its first wait.
    Now,
    /// The handler starts later, in another task.
    Later,
}

/// How far a handler has run.
pub(crate) enum Begun {
    Done(Handled),
    Waits(Handling),
}

/// Creates a handler's work, and starts it if `start` is [`Start::Now`].
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
