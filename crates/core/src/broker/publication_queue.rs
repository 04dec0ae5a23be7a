//! Publications that wait for a node to take them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::broker::limits::{MAX_WAITING_BYTES, MAX_WAITING_EVENTS};
use crate::broker::publication::Publication;

/// A bounded queue between a broker and its node, for use in a broker of your own. It holds up to
/// [`MAX_WAITING_EVENTS`] publications or [`MAX_WAITING_BYTES`]. Protect it with a lock.
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
    /// Creates a queue that is closed and empty.
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Returns whether the queue accepts no more publications.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns how many publications wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether no publication waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether the queue has no place for more publications.
    pub fn is_full(&self) -> bool {
        !self.has_place(0)
    }

    fn has_place(&self, size: usize) -> bool {
        self.waiting.is_empty()
            || (self.waiting.len() < MAX_WAITING_EVENTS && self.waiting_bytes + size <= MAX_WAITING_BYTES)
    }

    /// Reserves a place for a publication of `size` bytes. Returns `None` if the queue is full or
    /// closed.
    pub fn reserve(&mut self, size: usize) -> Option<Reservation<'_>> {
        (!self.closed && self.has_place(size)).then_some(Reservation(self))
    }

    /// Appends a publication even if the queue is full. Use this in a broker that has already taken
    /// the publication from the network and cannot reject it any more. While the queue [is
    /// full](Self::is_full), such a broker must stop taking events, but not the replies to
    /// publishes.
    pub fn push(&mut self, publication: Publication) {
        self.waiting_bytes += publication.size();
        self.waiting.push_back(publication);
        self.wake();
    }

    /// Closes the queue. It accepts no more publications. Those that wait can still be taken.
    pub fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    /// Takes all publications that wait, which makes place for more. Returns `false` if the queue
    /// is closed and empty.
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

/// A reserved place in a [`PublicationQueue`]. The queue stays borrowed until you fill the place or
/// drop it, so no other publication can take it.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Publication, PublicationQueue};
///
/// /// Returns whether the queue had a place.
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
