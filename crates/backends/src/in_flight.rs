//! Requests over HTTP/1.1 that can be cancelled at any time, even while the backend does not read
//! them.
//!
//! When the future of a request is dropped, hyper closes the request's connection, but first writes
//! what it has buffered of the request. If the backend does not read, this write never ends. So the
//! node could neither reach the backend with its cancellation, nor free the memory of the request.
//!
//! Nor does hyper notice in time that the future was dropped while a backend sends `100 Continue`
//! without end.
//!
//! Therefore, a request records which connection carries it, and tells apart its own use of the
//! connection from earlier and later ones. Once the request is dropped, reads of the connection
//! fail, and so do writes that would wait. hyper then closes the connection, and never uses it for
//! another request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{Extensions, Request};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use parking_lot::Mutex;

/// What a connection and its requests share: which request uses the connection, and whether this
/// request was dropped. The requests of a connection follow one another.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// The number of requests so far, of which the last one is current.
    requests: AtomicU64,
    /// The number of the last request that was dropped, or 0.
    dropped: AtomicU64,
    /// When this request was dropped.
    dropped_at: Mutex<Option<Instant>>,
    /// The task that reads from the connection and writes to it.
    task: AtomicWaker,
}

impl Usage {
    fn begin(self: Arc<Self>) -> Current {
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        Current { usage: self, number }
    }

    /// Returns whether the current request was dropped. If not, `context` is woken when it is.
    pub(crate) fn is_dropped(&self, context: &Context<'_>) -> bool {
        self.task.register(context.waker());
        self.has_dropped()
    }

    /// Returns when the current request was dropped, or `None` if it was not.
    pub(crate) fn dropped_at(&self) -> Option<Instant> {
        self.has_dropped().then(|| *self.dropped_at.lock()).flatten()
    }

    fn has_dropped(&self) -> bool {
        let dropped = self.dropped.load(Ordering::Acquire);
        dropped != 0 && dropped == self.requests.load(Ordering::Acquire)
    }
}

/// One request's use of its connection.
#[derive(Debug)]
struct Current {
    usage: Arc<Usage>,
    number: u64,
}

impl Current {
    fn end(&self) {
        *self.usage.dropped_at.lock() = Some(Instant::now());
        self.usage.dropped.store(self.number, Ordering::Release);
        self.usage.task.wake();
    }
}

/// Whether a request may have reached the backend. Clones share the value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(Arc<AtomicBool>);

impl Sent {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, sent: bool) {
        self.0.store(sent, Ordering::Release);
    }
}

/// Held while a request is of interest. When it is dropped before the whole response has arrived,
/// the connection closes.
#[derive(Debug)]
#[must_use]
pub(crate) struct InFlight(Arc<OnceLock<Current>>);

impl InFlight {
    /// Prepares a request, and sets whether it was sent.
    pub(crate) fn new(request: Request<Bytes>, sent: Sent) -> (Request<RequestBody>, Self) {
        sent.set(false);
        let current = Arc::new(OnceLock::new());
        let (head, bytes) = request.into_parts();
        let mut request = Request::from_parts(head, ());
        let connection = capture_connection(&mut request);
        let body = RequestBody { bytes: Some(bytes), connection, sent, current: Arc::clone(&current) };
        (request.map(|()| body), Self(current))
    }

    /// Leaves the connection to the next request, because the whole response has arrived.
    pub(crate) fn finish(mut self) {
        self.0 = Arc::default();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(current) = self.0.get() {
            current.end();
        }
    }
}

/// The body of a request. hyper asks for its size when it begins to write the request to a
/// connection, even if the body is empty.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` after hyper has taken it.
    bytes: Option<Bytes>,
    connection: CaptureConnection,
    sent: Sent,
    current: Arc<OnceLock<Current>>,
}

impl RequestBody {
    /// Marks the request as sent, and as the current one of its connection. Connections without
    /// [`Usage`], such as those over HTTP/2, have a cancellation of their own.
    fn begin(&self) {
        if self.current.get().is_some() {
            return;
        }
        let mut extras = Extensions::new();
        if let Some(connection) = &*self.connection.connection_metadata() {
            self.sent.set(true);
            connection.get_extras(&mut extras);
        }
        if let Some(usage) = extras.remove::<Arc<Usage>>() {
            self.current.get_or_init(|| usage.begin());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes.take().filter(|bytes| !bytes.is_empty());
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    /// Without a size, an empty body would have ended before the request begins.
    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.begin();
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn only_the_current_request_of_a_connection_is_dropped() {
        let usage = Arc::<Usage>::default();
        let is_dropped = || usage.is_dropped(&Context::from_waker(Waker::noop()));
        assert!(!is_dropped(), "before the first request");
        let first = Arc::clone(&usage).begin();
        assert!(!is_dropped());
        let second = Arc::clone(&usage).begin();
        first.end();
        assert!(!is_dropped(), "the first request is over, and the second one continues");
        second.end();
        assert!(is_dropped());
        let _third = Arc::clone(&usage).begin();
        assert!(!is_dropped());
    }
}
