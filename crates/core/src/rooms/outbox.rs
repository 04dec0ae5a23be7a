//! One connection's bounded output, between those who produce it and the driver that writes it.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_protocol::{CloseCode, CloseFrame, Opcode};

use crate::rooms::load::NodeLoad;

/// What is to be written: one or more whole WebSocket frames.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The frames.
    pub bytes: Bytes,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// For one connection.
    Own,
    /// A room's events, whose bytes all members share.
    Shared {
        /// When the first was published.
        published_at: Instant,
    },
}

/// Memory that each queued frame takes besides its bytes: its place in a queue that doubles when it grows, and what the
/// allocator adds to a small buffer (a header, and at least 24 bytes). Without it, a client that never reads could make
/// a node hold 90 bytes for each byte that is counted.
pub const FRAME_OVERHEAD: usize = 2 * size_of::<Outgoing>() + 32;

impl Outgoing {
    /// Frames for one connection, which is charged for their bytes.
    pub fn own(bytes: Bytes) -> Self {
        Self { bytes, kind: Kind::Own }
    }

    /// A room's events: their bytes are charged once for all members.
    pub(crate) fn shared(bytes: Bytes, published_at: Instant) -> Self {
        Self { bytes, kind: Kind::Shared { published_at } }
    }

    /// When the first event was published, to measure its delivery latency. `None`: these are not a room's events.
    pub fn published_at(&self) -> Option<Instant> {
        match self.kind {
            Kind::Own => None,
            Kind::Shared { published_at } => Some(published_at),
        }
    }

    /// The memory that it takes.
    fn cost(&self) -> usize {
        FRAME_OVERHEAD + self.bytes.len()
    }

    /// The same, without what it shares with others.
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

/// The opcode's bits in a frame's first byte (RFC 6455, section 5.2).
const OPCODE: u8 = 0x0F;

/// A command to the driver, beside output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Close once no call is in flight.
    Drain,
    /// Close now.
    Close(CloseFrame),
}

/// Why output was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The queue passed its limit just now; the connection is being closed with 4408.
    Full,
    /// The connection has ended or is being closed.
    Closed,
}

/// What a connection makes its node hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldBytes {
    /// Its end gives this back.
    pub(crate) own: usize,
    /// Given back when the last of the connections that share it ends.
    pub(crate) shared: usize,
}

impl HeldBytes {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self { own: 0, shared: 0 }
    }
}

/// A queue of frames with one reader, the connection's driver, and any number of writers, none of which ever waits. Its
/// limit is in bytes of memory and covers what the driver has taken but not yet written; a frame that alone exceeds the
/// limit is still accepted when nothing else is queued.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    limit: usize,
    load: Arc<NodeLoad>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Memory of what is queued, or taken but not completely written.
    bytes: usize,
    /// The part of it that is not shared with other connections.
    own_bytes: usize,
    /// The Pong for the newest Ping. Only the newest is kept, because an endpoint may respond only to the
    /// most recent Ping (RFC 6455, section 5.5.3): a flood of Pings queues nothing.
    pong: Option<Box<Bytes>>,
    /// A Pong was taken but is not written yet; the next one waits for that.
    pong_taken: bool,
    command: Option<Box<Command>>,
    /// No more output is taken.
    closed: bool,
    /// The driver sleeps and must be woken.
    asleep: bool,
    /// The driver was woken and counts as lagging until it runs.
    woken: bool,
    /// Late events of a room wait for space here.
    awaited: bool,
    /// Tasks that wait until [`Outbox::poll_ready`] is ready. Boxed: most connections never have any.
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
    /// An outbox of at most `limit` bytes.
    pub fn new(limit: usize, load: Arc<NodeLoad>) -> Self {
        Self { state: Mutex::default(), limit, load }
    }

    /// Queues frames.
    ///
    /// # Errors
    /// [`Rejected`] if they were not queued. On [`Rejected::Full`] the connection begins to close
    /// with 4408; nobody else is affected.
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

    /// Whether a late event may be queued: late events fill at most half of an outbox, so that space is left for
    /// everything else. If not, `NodeLoad::space_made` returns when there is more space.
    pub(crate) fn has_space_for(&self, outgoing: &Outgoing) -> bool {
        let mut state = self.state.lock();
        let has_space = state.closed || state.bytes == 0 || state.bytes + outgoing.cost() <= self.limit / 2;
        // Another room may wait for more space than this one needs.
        state.awaited |= !has_space;
        has_space
    }

    /// Ready once at most half of the limit is queued, or nothing is taken any more. For writers who would rather wait
    /// than fill the outbox.
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

    /// The memory of what is queued and not written.
    pub(crate) fn held(&self) -> HeldBytes {
        let state = self.state.lock();
        HeldBytes { own: state.own_bytes, shared: state.bytes - state.own_bytes }
    }

    /// Asks the driver to close the connection. The first close wins; `false`: this was not it.
    pub fn close(&self, close: CloseFrame) -> bool {
        self.command(&mut self.state.lock(), Command::Close(close))
    }

    /// Asks the driver to close the connection with 1001 once no call is in flight.
    pub fn drain(&self) {
        self.command(&mut self.state.lock(), Command::Drain);
    }

    /// Whether output is no longer taken.
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

    /// The driver runs: until it sleeps again it need not be woken.
    pub fn awake(&self) {
        let mut state = self.state.lock();
        state.asleep = false;
        self.note_run(&mut state);
    }

    /// Moves everything queued to the end of `into`. `false`: there was nothing, and the task of `cx`
    /// will be woken when there is.
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

    /// The command that waits, if any.
    pub fn take_command(&self) -> Option<Command> {
        self.state.lock().command.take().map(|command| *command)
    }

    /// These frames were completely written, or discarded.
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

    /// The connection ends: nothing more is taken. What is queued can still be taken by the driver.
    pub fn seal(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.asleep = false;
        state.pong = None;
        self.on_space_made(&mut state);
        // A wake-up that its driver no longer receives must not hold fan-out back.
        self.note_run(&mut state);
    }

    /// Gives up what is queued.
    pub fn discard(&self) {
        let queue = std::mem::take(&mut self.state.lock().queue);
        self.wrote(queue.iter());
    }

    /// Queues the connection's last frame, behind everything else, though it is sealed.
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
        // Frames that the driver has taken are released when it is dropped.
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
