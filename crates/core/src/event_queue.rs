//! Events that wait for a node's hub.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::envelope::Envelope;

/// How many events may wait for one node's hub.
const MAX_WAITING_EVENTS: usize = 65_536;

/// How many bytes of events may wait for one node's hub; one event may always wait.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// A bounded queue between a broker and the hub: at most 65,536 events or 64 MiB. Behind its owner's lock.
#[derive(Debug, Default)]
pub struct EventQueue {
    waiting: VecDeque<Envelope>,
    waiting_bytes: usize,
    closed: bool,
    waker: Option<Waker>,
}

impl EventQueue {
    /// An empty one that is closed: nobody will take from it.
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Whether the hub still wants events.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether so many more bytes must wait for their place.
    pub fn is_full(&self, more: usize) -> bool {
        !self.waiting.is_empty()
            && (self.waiting.len() >= MAX_WAITING_EVENTS || self.waiting_bytes + more > MAX_WAITING_BYTES)
    }

    /// Appends an event. Whether there is room is the caller's to ask before.
    pub fn push(&mut self, event: Envelope) {
        self.waiting_bytes += event.size();
        self.waiting.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// No more events come; those that wait are still given out.
    pub fn close(&mut self) {
        self.closed = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Gives out all that waits. `false`: the queue is closed and empty.
    pub fn poll_events(&mut self, cx: &Context<'_>, events: &mut Vec<Envelope>) -> Poll<bool> {
        if !self.waiting.is_empty() {
            self.waiting_bytes = 0;
            events.extend(self.waiting.drain(..));
            Poll::Ready(true)
        } else if self.closed {
            Poll::Ready(false)
        } else {
            self.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}
