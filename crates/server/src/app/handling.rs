//! Running a handler: its work as a future, and its panic kept to itself.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::BoxFuture;

use crate::error::{CallError, panicked};

/// A handler's work on one request.
pub(crate) type Handling = BoxFuture<'static, Result<Bytes, CallError>>;

/// What became of a handler.
pub(crate) enum Handled {
    Returned(Result<Bytes, CallError>),
    Panicked,
}

impl Handled {
    /// The answer to the client.
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
            Some(result) => Begun::Done(Handled::Returned(result)),
            None => Begun::Waits(handling),
        }
    };
    std::panic::catch_unwind(AssertUnwindSafe(first_poll)).unwrap_or(Begun::Done(Handled::Panicked))
}
