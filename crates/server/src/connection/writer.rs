//! Output taken from the outbox, on its way to the socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use prometheus::Histogram;
use roomcast_core::{Outbox, Outgoing};

use crate::connection::transport::Transport;

/// How many queued frames go to the kernel in one call.
const MAX_SLICES: usize = 64;

/// An emptied queue gives its memory back if it grew over so many entries.
const KEPT_CAPACITY: usize = 64;

/// Frames in order, the first perhaps partly written. One `writev` takes as many as wait: under load
/// that is what keeps the cost of a message low, and a lone message is never held back for it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) queue: VecDeque<Outgoing>,
    /// Bytes of the first frame that are written already.
    offset: usize,
    delivery_latency: Histogram,
}

impl Writer {
    pub(crate) fn new(delivery_latency: Histogram) -> Self {
        Self { queue: VecDeque::new(), offset: 0, delivery_latency }
    }

    /// Writes until nothing is left or the socket takes no more.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
        outbox: &Outbox,
    ) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, outgoing) in slices.iter_mut().zip(&self.queue) {
                let skip = if count == 0 { self.offset } else { 0 };
                *slice = IoSlice::new(&outgoing.bytes[skip..]);
                count += 1;
            }
            let written = ready!(transport.poll_write(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written, outbox);
        }
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
        // Also with nothing queued: what was written before may be held below, encrypted and unsent.
        transport.poll_flush(cx)
    }

    fn advance(&mut self, written: usize, outbox: &Outbox) {
        self.offset += written;
        let mut now = None;
        outbox.wrote(std::iter::from_fn(|| {
            self.offset = self.offset.checked_sub(self.queue.front()?.bytes.len())?;
            let done = self.queue.pop_front()?;
            if let Some(published_at) = done.published_at() {
                let now = *now.get_or_insert_with(Instant::now);
                self.delivery_latency.observe(now.saturating_duration_since(published_at).as_secs_f64());
            }
            Some(done)
        }));
    }

    /// Gives up what is queued, but for a frame that is half written: the peer must see it whole to
    /// understand what follows.
    pub(crate) fn discard_unstarted(&mut self, outbox: &Outbox) {
        let kept = usize::from(self.offset > 0);
        outbox.wrote(self.queue.iter().skip(kept));
        self.queue.truncate(kept);
    }
}
