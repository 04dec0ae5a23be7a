//! The bounded output of a connection, which others produce and the driver writes.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_protocol::{CloseCode, CloseFrame, Opcode};

use crate::rooms::load::NodeLoad;

/// Output: one or more complete WebSocket frames.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The frames.
    pub bytes: Bytes,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Frames for one connection.
    Own,
    /// A room's events, whose bytes all members share.
    Shared {
        /// When the first event was published.
        published_at: Instant,
    },
}

/// The memory that each queued frame takes in addition to its bytes. It consists of a place in a
/// queue that doubles when it grows, and of what the allocator adds to a small buffer (a header,
/// and at least 24 bytes). If this were not counted, a client that never reads could make a node
/// hold 90 bytes for each counted byte.
pub const FRAME_OVERHEAD: usize = 2 * size_of::<Outgoing>() + 32;

impl Outgoing {
    /// Creates output for one connection, which is charged for its bytes.
    pub fn own(bytes: Bytes) -> Self {
        Self { bytes, kind: Kind::Own }
    }

    /// Creates the output of a room's events, whose bytes are charged once for all members.
    pub(crate) fn shared(bytes: Bytes, published_at: Instant) -> Self {
        Self { bytes, kind: Kind::Shared { published_at } }
    }

    /// Returns when the first event was published, to measure its delivery latency. Returns `None`
    /// if these frames are not events of a room.
    pub fn published_at(&self) -> Option<Instant> {
        match self.kind {
            Kind::Own => None,
            Kind::Shared { published_at } => Some(published_at),
        }
    }

    /// Returns how much memory the output takes.
    fn cost(&self) -> usize {
        FRAME_OVERHEAD + self.bytes.len()
    }

    /// Returns how much memory the output takes, without what it shares with other connections.
    fn own_cost(&self) -> usize {
        match self.kind {
            Kind::Own => self.cost(),
            Kind::Shared { .. } => FRAME_OVERHEAD,
        }
    }

    fn is_pong(&self) -> bool {
        self.bytes.first().is_some_and(|first| first & OPCODE == Opcode::Pong as u8)
    }
}

/// The bits of the opcode in a frame's first byte (RFC 6455, section 5.2).
const OPCODE: u8 = 0x0F;

/// A command to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Close the connection once no call is in flight.
    Drain,
    /// Close the connection now.
    Close(CloseFrame),
}

/// Why output was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The queue would exceed its limit. The connection is being closed with 4408.
    Full,
    /// The connection has ended or is being closed.
    Closed,
}

/// The memory that a connection makes its node hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldBytes {
    /// Released when the connection ends.
    pub(crate) own: usize,
    /// Released when the last of the connections that share it ends.
    pub(crate) shared: usize,
}

impl HeldBytes {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self { own: 0, shared: 0 }
    }
}

/// A queue of frames with any number of writers and one reader, the connection's driver. Writers
/// never wait.
///
/// The limit, in bytes of memory, includes frames that the driver has taken but not written yet. If
/// nothing else is queued, the queue accepts a frame that exceeds the limit by itself.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    limit: usize,
    load: Arc<NodeLoad>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Memory of frames that are queued, or taken but not completely written.
    bytes: usize,
    /// The part of `bytes` that is not shared with other connections.
    own_bytes: usize,
    /// The Pong for the latest Ping. An endpoint may respond to only the most recent Ping (RFC
    /// 6455, section 5.5.3), so a flood of Pings does not fill the queue.
    pong: Option<Box<Bytes>>,
    /// Whether a Pong was taken but is not written yet. The next Pong waits until it is written.
    pong_taken: bool,
    command: Option<Box<Command>>,
    /// Whether the outbox accepts no more output.
    closed: bool,
    /// Whether the driver sleeps and must be woken.
    asleep: bool,
    /// Whether the driver was woken and has not run yet, so that it counts as lagging.
    woken: bool,
    /// Whether late events of a room wait for space here.
    awaited: bool,
    /// Tasks that wait until [`Outbox::poll_ready`] is ready. Boxed, because most connections have
    /// none.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each connection")]
    writers: Option<Box<Vec<Waker>>>,
    waker: Option<Waker>,
}

impl State {
    fn is_ready(&self, limit: usize) -> bool {
        self.closed || self.bytes <= limit / 2
    }
}

impl Outbox {
    /// Creates an outbox of at most `limit` bytes.
    pub fn new(limit: usize, load: Arc<NodeLoad>) -> Self {
        Self { state: Mutex::default(), limit, load }
    }

    /// Queues frames.
    ///
    /// # Errors
    /// Returns [`Rejected`] if the frames were not queued. After [`Rejected::Full`], this
    /// connection closes with 4408; other connections are not affected.
    pub fn push(&self, outgoing: Outgoing) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        let cost = outgoing.cost();
        if state.bytes > 0 && state.bytes + cost > self.limit {
            let close = CloseFrame::new(
                CloseCode::SLOW_CONSUMER,
                format!(
                    "slow consumer: unread output takes {} bytes of memory; the limit is {}",
                    state.bytes, self.limit
                ),
            );
            self.command(&mut state, Command::Close(close));
            return Err(Rejected::Full);
        }
        self.enqueue(&mut state, outgoing);
        self.wake(&mut state);
        Ok(())
    }

    /// Answers a Ping. The Pong replaces an earlier one that the driver has not taken yet.
    pub fn pong(&self, pong: Bytes) {
        let mut state = self.state.lock();
        if !state.closed {
            state.pong = Some(Box::new(pong));
            self.wake(&mut state);
        }
    }

    /// Returns whether a late event may be queued. Late events fill at most half of an outbox, so
    /// that space is left for all other output. If this returns `false`, `NodeLoad::space_made`
    /// returns when there is more space.
    pub(crate) fn has_space_for(&self, outgoing: &Outgoing) -> bool {
        let mut state = self.state.lock();
        let has_space = state.closed || state.bytes == 0 || state.bytes + outgoing.cost() <= self.limit / 2;
        // Another room may wait for more space than this event needs.
        state.awaited |= !has_space;
        has_space
    }

    /// Ready once at most half of the limit is queued, or once the outbox accepts no more output.
    /// Writers use it to wait before they fill the outbox.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_ready(self.limit) {
            return Poll::Ready(());
        }
        let writers = state.writers.get_or_insert_default();
        if !writers.iter().any(|writer| writer.will_wake(cx.waker())) {
            writers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn on_space_made(&self, state: &mut State) {
        if state.writers.is_some() && state.is_ready(self.limit) {
            state.writers.take().into_iter().flat_map(|writers| *writers).for_each(Waker::wake);
        }
        if std::mem::take(&mut state.awaited) {
            self.load.on_space_made();
        }
    }

    fn enqueue(&self, state: &mut State, outgoing: Outgoing) {
        state.bytes += outgoing.cost();
        state.own_bytes += outgoing.own_cost();
        self.load.outbound.charge(outgoing.own_cost());
        state.queue.push_back(outgoing);
    }

    pub(crate) fn load(&self) -> &Arc<NodeLoad> {
        &self.load
    }

    /// Returns the memory of output that is queued but not written.
    pub(crate) fn held(&self) -> HeldBytes {
        let state = self.state.lock();
        HeldBytes { own: state.own_bytes, shared: state.bytes - state.own_bytes }
    }

    /// Asks the driver to close the connection. Only the first request takes effect. Returns
    /// whether this was the first.
    pub fn close(&self, close: CloseFrame) -> bool {
        self.command(&mut self.state.lock(), Command::Close(close))
    }

    /// Asks the driver to close the connection with 1001 once no call is in flight.
    pub fn drain(&self) {
        self.command(&mut self.state.lock(), Command::Drain);
    }

    /// Returns whether the outbox accepts no more output.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn command(&self, state: &mut State, command: Command) -> bool {
        if state.closed {
            return false;
        }
        if matches!(command, Command::Close(_)) {
            state.closed = true;
            self.on_space_made(state);
        }
        state.command = Some(Box::new(command));
        self.wake(state);
        true
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.asleep)
            && let Some(waker) = &state.waker
        {
            state.woken = true;
            self.load.on_woken();
            waker.wake_by_ref();
        }
    }

    // === the driver's side ===

    /// Call this when the driver runs. Until it sleeps again, it need not be woken.
    pub fn awake(&self) {
        let mut state = self.state.lock();
        state.asleep = false;
        self.note_run(&mut state);
    }

    /// Moves all queued frames to the end of `into`. Returns `false` if there is no frame and no
    /// command. The task of `cx` is then woken when there is.
    pub fn take_or_sleep(&self, into: &mut VecDeque<Outgoing>, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if !state.pong_taken
            && let Some(bytes) = state.pong.take()
        {
            state.pong_taken = true;
            self.enqueue(&mut state, Outgoing::own(*bytes));
        }
        if state.queue.is_empty() && state.command.is_none() {
            state.asleep = true;
            if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            return false;
        }
        match into.is_empty() {
            true => std::mem::swap(&mut state.queue, into),
            false => into.append(&mut state.queue),
        }
        true
    }

    /// Takes the command that waits, if there is one.
    pub fn take_command(&self) -> Option<Command> {
        self.state.lock().command.take().map(|command| *command)
    }

    /// Returns the memory of the output that is not written yet, in bytes.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Call this when these frames were completely written or discarded.
    pub fn wrote(&self, frames: impl Iterator<Item: Borrow<Outgoing>>) {
        let (mut cost, mut own_cost, mut has_pong) = (0, 0, false);
        for frame in frames {
            let frame = frame.borrow();
            cost += frame.cost();
            own_cost += frame.own_cost();
            has_pong |= frame.is_pong();
        }
        if cost == 0 {
            return;
        }
        self.load.outbound.release(own_cost);
        let mut state = self.state.lock();
        state.bytes -= cost;
        state.own_bytes -= own_cost;
        self.on_space_made(&mut state);
        if state.pong_taken && has_pong {
            state.pong_taken = false;
            if state.pong.is_some() {
                self.wake(&mut state);
            }
        }
    }

    /// Call this when the connection ends. The outbox accepts no more output. The driver can still
    /// take what is queued.
    pub fn seal(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.asleep = false;
        state.pong = None;
        self.on_space_made(&mut state);
        // A wake-up that the driver no longer receives must not delay fan-out.
        self.note_run(&mut state);
    }

    /// Discards all queued frames.
    pub fn discard(&self) {
        let queue = std::mem::take(&mut self.state.lock().queue);
        self.wrote(queue.iter());
    }

    /// Queues the connection's last frame, behind all other output, although the outbox accepts no
    /// more.
    pub fn push_last(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        state.closed = true;
        state.pong = None;
        self.enqueue(&mut state, Outgoing::own(bytes));
    }

    fn note_run(&self, state: &mut State) {
        if std::mem::take(&mut state.woken) {
            self.load.on_run();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.woken {
            self.load.on_run();
        }
        // Frames that the driver has taken are released when the driver is dropped.
        self.load.outbound.release(state.queue.iter().map(Outgoing::own_cost).sum());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus::IntGauge;

    use super::*;
    use crate::rooms::budget::Budget;

    fn frame(len: usize) -> Outgoing {
        Outgoing::own(vec![0; len].into())
    }

    #[test]
    fn a_room_with_space_does_not_end_the_wait_of_another() {
        let budget = || Budget::new(IntGauge::new("memory", "Memory").expect("a valid name"), usize::MAX);
        let load = NodeLoad::new(budget(), budget());
        let outbox = Outbox::new(10_000, Arc::clone(&load));
        let queued = frame(1000);
        assert_eq!(outbox.push(queued.clone()), Ok(()));
        assert!(!outbox.has_space_for(&frame(5000)));
        assert!(outbox.has_space_for(&frame(100)));
        outbox.wrote(std::iter::once(&queued));
        assert_eq!(load.space_made().now_or_never(), Some(()));
    }
}
