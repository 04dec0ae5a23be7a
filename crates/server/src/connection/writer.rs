//! Moves output from the outbox to the socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use prometheus::Histogram;
use roomcast_core::{LocalConnection, Outbox, Outgoing};

use crate::connection::transport::Transport;

/// How many queued frames one system call writes.
const MAX_SLICES: usize = 64;

/// When a queue with more entries than this becomes empty, it releases its memory.
const KEPT_CAPACITY: usize = 64;

/// Frames in order. The first may be partly written. One `writev` writes all frames that wait. This
/// keeps the cost of each frame low under load, and a single frame is never delayed.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) queue: VecDeque<Outgoing>,
    /// How many bytes of the first frame are already written.
    offset: usize,
    delivery_latency: Histogram,
}

impl Writer {
    pub(crate) fn new(delivery_latency: Histogram) -> Self {
        Self { queue: VecDeque::new(), offset: 0, delivery_latency }
    }

    /// Writes until no output is left or the socket accepts no more.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
        connection: &LocalConnection,
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
            connection.count_sent(written);
            self.advance(written, &connection.outbox);
        }
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
        // Flush even if nothing is queued: a lower layer, such as TLS, may still hold earlier
        // output.
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

    /// Drops the queued frames, except for one that is partly written. The peer needs that frame to
    /// be complete in order to decode what follows.
    pub(crate) fn discard_unstarted(&mut self, outbox: &Outbox) {
        let kept = usize::from(self.offset > 0);
        outbox.wrote(self.queue.iter().skip(kept));
        self.queue.truncate(kept);
    }
}
