//! Requests of cancelled calls, which go on for the `cancel_grace` of their backend.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use roomcast::{BoxFuture, Cancel};
use tokio::runtime::Handle;

use crate::in_flight::Sent;

/// The request of a call. If it is dropped because the call was cancelled, the request goes on in a task of
/// its own for the grace. A request that was not sent yet ends with the call.
pub(crate) struct Graceful<T: Send + 'static> {
    /// `None` after it has ended.
    request: Option<BoxFuture<'static, T>>,
    cancel: Cancel,
    sent: Sent,
    grace: Duration,
}

impl<T: Send + 'static> Graceful<T> {
    pub(crate) fn new(request: BoxFuture<'static, T>, cancel: Cancel, sent: Sent, grace: Duration) -> Self {
        Self { request: Some(request), cancel, sent, grace }
    }
}

impl<T: Send + 'static> Future for Graceful<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(request) = &mut self.request else { return Poll::Pending };
        let polled = request.as_mut().poll(context);
        if polled.is_ready() {
            self.request = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Graceful<T> {
    fn drop(&mut self) {
        let has_grace = !self.grace.is_zero() && self.cancel.is_cancelled() && self.sent.get();
        if let Some(request) = self.request.take().filter(|_| has_grace)
            // Without a runtime, the program ends.
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(self.grace, request));
        }
    }
}
