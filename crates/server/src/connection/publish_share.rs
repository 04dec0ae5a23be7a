//! A connection's fair share of the node's publish queue.
//!
//! All connections share the broker's queue. What a connection publishes beyond its share waits here, in order, so that
//! a connection that floods can't fill the queue and make the others' publishes fail.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use roomcast_core::{BoxFuture, BrokerError, PublishError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How many bytes a connection may have published that the broker has not accepted yet. A larger publish may be under
/// way alone.
const SHARE: usize = 1024 * 1024;

/// A small publish counts as this many bytes: 256 of them use up a share.
const MIN_COST: usize = SHARE / 256;

pub(crate) type Publishing = BoxFuture<'static, Result<(), PublishError>>;

/// A connection's publishes under way. Created for the first one that the broker does not accept at once; an embedded
/// broker accepts all of them at once.
#[derive(Debug, Default)]
pub(crate) struct PublishShare {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that the broker has not accepted yet.
    under_way: usize,
    /// Bounded, because only the connection's calls and one notification can wait here.
    waiting: VecDeque<Waiting>,
}

/// A publish that waits for room in the share.
struct Waiting {
    cost: usize,
    begin: Box<dyn FnOnce() -> Publishing + Send>,
    begun: oneshot::Sender<UnderWay>,
}

/// What a publish of so many bytes takes of a share.
pub(crate) fn cost(payload: usize) -> usize {
    payload.clamp(MIN_COST, SHARE)
}

impl PublishShare {
    /// Begins a publish when it is its turn and there is room for it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        cost: usize,
        begin: impl FnOnce() -> Publishing + Send + 'static,
    ) -> Result<UnderWay, PublishError> {
        let _forgotten = ForgetWhoLeft(self);
        let begun = {
            let mut state = self.state.lock();
            if state.waiting.is_empty() && state.has_room_for(cost) {
                return Ok(self.start(&mut state, cost, begin));
            }
            let (begun, receiver) = oneshot::channel();
            state.waiting.push_back(Waiting { cost, begin: Box::new(begin), begun });
            receiver
        };
        // The sender is in the queue until it sends.
        begun.await.map_err(|_| BrokerError::Closed.into())
    }

    /// Called under the lock, so that publishes reach the broker in the order in which they were queued.
    fn start(self: &Arc<Self>, state: &mut State, cost: usize, begin: impl FnOnce() -> Publishing) -> UnderWay {
        state.under_way += cost;
        UnderWay::new(begin(), Counted { share: Arc::clone(self), cost })
    }

    /// Counts a publish that was begun already.
    pub(crate) fn count(self: &Arc<Self>, cost: usize) -> Counted {
        self.state.lock().under_way += cost;
        Counted { share: Arc::clone(self), cost }
    }

    fn release(self: &Arc<Self>, cost: usize) {
        let mut started = Vec::new();
        let mut state = self.state.lock();
        state.under_way -= cost;
        while let Some(cost) = state.waiting.front().map(|next| next.cost)
            && state.has_room_for(cost)
            && let Some(next) = state.waiting.pop_front()
        {
            if !next.begun.is_closed() {
                started.push((next.begun, self.start(&mut state, next.cost, next.begin)));
            }
        }
        drop(state);
        for (begun, publishing) in started {
            // If its call has just been cancelled, it is dropped here and goes on in a task of its own.
            let _ = begun.send(publishing);
        }
    }
}

impl State {
    fn has_room_for(&self, cost: usize) -> bool {
        self.under_way == 0 || self.under_way + cost <= SHARE
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("under_way", &self.under_way).field("waiting", &self.waiting.len()).finish()
    }
}

/// When dropped, removes publishes whose calls were cancelled from the queue. Must be dropped after the receiver they
/// wait on.
struct ForgetWhoLeft<'a>(&'a PublishShare);

impl Drop for ForgetWhoLeft<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting.retain(|waiting| !waiting.begun.is_closed());
    }
}

/// A part of a share; given back when dropped.
pub(crate) struct Counted {
    share: Arc<PublishShare>,
    cost: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.share.release(self.cost);
    }
}

/// A publish that the broker has not accepted yet. It counts until then even if its call was cancelled: a client that
/// cancels its calls must not have more under way than others.
pub(crate) struct UnderWay {
    /// `None`: it is done.
    inner: Option<(Publishing, Counted)>,
}

impl UnderWay {
    pub(crate) fn new(publishing: Publishing, counted: Counted) -> Self {
        Self { inner: Some((publishing, counted)) }
    }
}

impl Future for UnderWay {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((publishing, _)) = &mut self.inner else { return Poll::Pending };
        let result = publishing.as_mut().poll(cx);
        if result.is_ready() {
            self.inner = None;
        }
        result
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((publishing, counted)) = self.inner.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // Nobody waits for a failure any more; it is only counted.
            runtime.spawn(async move {
                let _ = publishing.await;
                drop(counted);
            });
        }
    }
}
