//! Publications that wait for a node's hub.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::broker::limits::{MAX_WAITING_BYTES, MAX_WAITING_EVENTS};
use crate::broker::publication::Publication;

/// A bounded queue between a broker and the hub: at most [`MAX_WAITING_EVENTS`] publications or [`MAX_WAITING_BYTES`].
/// Its owner locks it.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::PublicationQueue;
///
/// let mut queue = PublicationQueue::default();
/// assert!(queue.reserve(1024).is_some());
/// queue.close();
/// assert!(queue.reserve(1024).is_none(), "nothing will be taken from a closed queue");
/// ```
#[derive(Debug, Default)]
pub struct PublicationQueue {
    waiting: VecDeque<Publication>,
    waiting_bytes: usize,
    closed: bool,
    waker: Option<Waker>,
}

impl PublicationQueue {
    /// A queue that is closed and empty.
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Whether the hub takes no more publications.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many publications wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is no place for more.
    pub fn is_full(&self) -> bool {
        !self.has_place(0)
    }

    fn has_place(&self, size: usize) -> bool {
        self.waiting.is_empty()
            || (self.waiting.len() < MAX_WAITING_EVENTS && self.waiting_bytes + size <= MAX_WAITING_BYTES)
    }

    /// A place for a publication of `size` bytes. `None`: the queue is full or closed.
    pub fn reserve(&mut self, size: usize) -> Option<Reservation<'_>> {
        (!self.closed && self.has_place(size)).then_some(Reservation(self))
    }

    /// Appends a publication even if the queue is full: for a broker that has taken it from the network and can't refuse
    /// it any more. Such a broker pauses the events, but not the replies to publishes, while the queue
    /// [is full](Self::is_full).
    pub fn push(&mut self, publication: Publication) {
        self.waiting_bytes += publication.size();
        self.waiting.push_back(publication);
        self.wake();
    }

    /// Takes no more publications; those that wait are still given out.
    pub fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    /// Gives out all that waits, so the queue has room again. `false`: it is closed and empty.
    pub fn poll_publications(&mut self, cx: &Context<'_>, publications: &mut Vec<Publication>) -> Poll<bool> {
        if !self.waiting.is_empty() {
            self.waiting_bytes = 0;
            publications.extend(self.waiting.drain(..));
            Poll::Ready(true)
        } else if self.closed {
            Poll::Ready(false)
        } else {
            self.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A place in a [`PublicationQueue`], held until it is filled or dropped: the queue stays borrowed, so no other
/// publication can take it.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Publication, PublicationQueue};
///
/// /// Whether there was a place.
/// fn deliver(publication: Publication, queue: &mut PublicationQueue) -> bool {
///     let place = queue.reserve(publication.size());
///     place.map(|place| place.fill(publication)).is_some()
/// }
/// ```
#[derive(Debug)]
pub struct Reservation<'a>(&'a mut PublicationQueue);

impl Reservation<'_> {
    /// Fills the place.
    pub fn fill(self, publication: Publication) {
        self.0.push(publication);
    }
}
