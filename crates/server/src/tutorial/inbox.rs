//! The calls and notifications that the tutorial's loop has not received yet.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::connection::inbound::Permit;
use crate::end::Disconnected;
use crate::tutorial::end_known::EndKnown;
use crate::tutorial::procedure::Procedure;

/// A bounded queue with one producer, the driver, which never waits, and one consumer.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    capacity: usize,
    end_known: EndKnown,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Procedure, Option<Permit>)>,
    ended: Option<Disconnected>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity, end_known: EndKnown::default() }
    }

    pub(crate) fn end_known(&self) -> &EndKnown {
        &self.end_known
    }

    /// Reserves a place. Returns `None` if the queue is full.
    pub(crate) fn reserve(&self) -> Option<Reservation<'_>> {
        let state = self.state.lock();
        (state.queue.len() < self.capacity).then_some(Reservation(state))
    }

    /// Ends the queue. Nothing is added after this.
    pub(crate) fn end(&self, disconnected: Disconnected) {
        let mut state = self.state.lock();
        state.ended = Some(disconnected);
        state.wake();
    }

    /// Returns the next call or notification in order, or how the connection ended once all were
    /// received. It skips calls that were cancelled while they waited.
    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<Procedure, Disconnected>> {
        let mut state = self.state.lock();
        while let Some((procedure, _)) = state.queue.pop_front() {
            match procedure {
                Procedure::Call(_, _, ref cancel) if cancel.is_cancelled() => {}
                wanted => return Poll::Ready(Ok(wanted)),
            }
        }
        match &state.ended {
            Some(ended) => {
                self.end_known.set();
                Poll::Ready(Err(ended.clone()))
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A place in an [`Inbox`].
pub(crate) struct Reservation<'a>(MutexGuard<'a, State>);

impl Reservation<'_> {
    /// Fills the place.
    pub(crate) fn fill(mut self, procedure: Procedure, payload: Option<Permit>) {
        self.0.queue.push_back((procedure, payload));
        self.0.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
