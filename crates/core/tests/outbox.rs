//! One connection's output: its bound, its closing, who is woken, and what is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use prometheus::IntGauge;
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_core::{Budget, Command, FRAME_OVERHEAD, NodeLoad, Outbox, Outgoing, Rejected};
use roomcast_protocol::{CloseCode, CloseFrame, Opcode, encode_message};
use tokio::time::Instant;

/// So many woken drivers may lag before fan-out waits for them, and so long at most.
const MAX_WOKEN: usize = 64;
const BRAKE_DEADLINE: Duration = Duration::from_millis(20);

// === the bound ===

#[test]
fn what_was_taken_counts_until_it_is_wholly_written() {
    let driver = Driver::new(10);
    assert_eq!((driver.push(6), driver.push(2)), (Ok(()), Ok(())));
    assert_eq!(driver.take(), [6, 2]);
    assert_eq!(driver.queued(), 8);
    driver.wrote(1);
    assert_eq!(driver.push(8), Ok(()), "2 are left, so 8 more are just within the bound");
    assert_eq!(driver.queued(), 10);
    assert_eq!(driver.push(1), Err(Rejected::Full));
    assert_eq!(driver.queued(), 10, "what is refused is not counted");
}

#[test]
fn frames_of_a_few_bytes_count_with_the_memory_that_they_take() {
    let driver = Driver::new(10);
    let push = || driver.outbox.push(Outgoing::own(encode_message(Opcode::Binary, b"")));
    let queued = (0..).take_while(|_| push().is_ok()).count();
    assert_eq!(queued, 10 * UNIT / (FRAME_OVERHEAD + 2));
}

#[test]
fn a_message_over_the_bound_passes_when_nothing_else_waits() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(1000), Ok(()));
    assert_eq!(driver.take(), [1000]);
    driver.wrote(1);
    assert_eq!(driver.push(1000), Ok(()));
    assert_eq!(driver.push(1), Err(Rejected::Full));
    assert_eq!(driver.take(), [1000]);
}

#[test]
fn an_overflow_closes_with_4408_once_and_ends_the_taking() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(8), Ok(()));
    assert!(!driver.outbox.is_closed());
    assert_eq!(driver.push(3), Err(Rejected::Full));
    assert!(driver.outbox.is_closed());
    // Though this one would have had its place.
    assert_eq!(driver.push(1), Err(Rejected::Closed));
    driver.outbox.close(going_away());
    let Some(Command::Close(close)) = driver.outbox.take_command() else { panic!("it is told to close") };
    assert_eq!(close.code, CloseCode::SLOW_CONSUMER);
    let (held, limit) = (format!("{} bytes of memory", 8 * UNIT), format!("limit is {}", 10 * UNIT));
    assert!(close.reason.contains(&held) && close.reason.contains(&limit), "{}", close.reason);
    assert_eq!(driver.outbox.take_command(), None);
    assert_eq!(driver.take(), [8]);
}

// === closing ===

#[test]
fn the_first_close_wins_and_a_drain_does_not_soften_it() {
    let driver = Driver::new(10);
    driver.outbox.drain();
    assert_eq!(driver.push(1), Ok(()), "a connection that drains still gets its output");
    driver.outbox.close(CloseFrame::new(CloseCode::DISCONNECTED, "first"));
    driver.outbox.close(going_away());
    driver.outbox.drain();
    let first = CloseFrame::new(CloseCode::DISCONNECTED, "first");
    assert_eq!(driver.outbox.take_command(), Some(Command::Close(first)));
    driver.outbox.close(going_away());
    assert_eq!(driver.outbox.take_command(), None);
    assert_eq!(driver.push(1), Err(Rejected::Closed));
}

#[test]
fn a_drain_is_told_once() {
    let driver = Driver::new(10);
    driver.outbox.drain();
    assert_eq!(driver.outbox.take_command(), Some(Command::Drain));
    assert_eq!(driver.outbox.take_command(), None);
    assert!(!driver.outbox.is_closed());
}

#[test]
fn the_last_frame_comes_behind_everything_else_though_the_outbox_is_sealed_and_full() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(9), Ok(()));
    driver.outbox.seal();
    assert_eq!(driver.push(1), Err(Rejected::Closed));
    assert_eq!(driver.outbox.take_command(), None, "who seals knows of the end");
    driver.outbox.push_last(frame(20).bytes);
    assert_eq!(driver.queued(), 29);
    assert_eq!(driver.take(), [9, 20]);
    driver.wrote(2);
    assert_eq!(driver.queued(), 0);
}

#[test]
fn discarding_gives_up_what_is_queued_and_keeps_what_was_taken() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(1), Ok(()));
    assert_eq!(driver.take(), [1]);
    assert_eq!((driver.push(2), driver.push(3)), (Ok(()), Ok(())));
    driver.outbox.discard();
    assert_eq!((driver.queued(), driver.take()), (1, vec![]));
    assert_eq!(driver.push(9), Ok(()), "its place is free again");
}

// === Pongs ===

#[test]
fn only_the_newest_pong_waits_and_it_comes_behind_what_was_queued() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(1), Ok(()));
    driver.pong("first");
    driver.pong("second");
    let mut queue = VecDeque::new();
    driver.outbox.take_or_sleep(&mut queue, &driver.context());
    let pongs: Vec<_> = queue.iter().skip(1).map(|outgoing| outgoing.bytes.clone()).collect();
    assert_eq!((queue.len(), pongs), (2, vec![pong("second")]));
}

#[test]
fn a_flood_of_pings_queues_one_pong_though_the_driver_runs_each_time() {
    let driver = Driver::new(10);
    let mut queue = VecDeque::new();
    for number in 0..1000 {
        driver.pong(&number.to_string());
        while driver.outbox.take_or_sleep(&mut queue, &driver.context()) {}
    }
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_pong_that_waits_for_another_to_be_written_wakes_its_driver_then() {
    let driver = Driver::new(10);
    driver.pong("first");
    let mut queue = VecDeque::new();
    assert!(driver.outbox.take_or_sleep(&mut queue, &driver.context()));
    driver.pong("second");
    assert!(!driver.outbox.take_or_sleep(&mut VecDeque::new(), &driver.context()));
    driver.outbox.wrote(queue.iter());
    assert_eq!((driver.wakes(), driver.queued()), (1, 0));
    queue.clear();
    assert!(driver.outbox.take_or_sleep(&mut queue, &driver.context()));
    assert_eq!(queue[0].bytes, pong("second"));
}

#[test]
fn no_pong_follows_the_close() {
    let driver = Driver::new(10);
    driver.pong("first");
    driver.outbox.seal();
    driver.pong("second");
    driver.outbox.push_last(frame(1).bytes);
    assert_eq!(driver.take(), [1]);
}

// === waking ===

#[test]
fn a_driver_is_woken_exactly_when_it_sleeps() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(1), Ok(()));
    assert_eq!(driver.wakes(), 0, "it has not slept yet");
    assert_eq!(driver.take(), [1]);
    assert_eq!((driver.push(1), driver.wakes()), (Ok(()), 0), "it took something, so it looks again");
    assert_eq!(driver.take(), [1]);

    assert_eq!((driver.take(), driver.wakes()), (vec![], 0));
    assert_eq!((driver.push(1), driver.wakes()), (Ok(()), 1));
    assert_eq!((driver.push(1), driver.wakes()), (Ok(()), 1), "once is enough");
    driver.outbox.awake();
    assert_eq!(driver.take(), [1, 1]);

    assert!(driver.take().is_empty());
    driver.outbox.awake();
    assert_eq!((driver.push(1), driver.wakes()), (Ok(()), 1), "something else made it run");
    assert_eq!(driver.take(), [1]);

    assert!(driver.take().is_empty());
    driver.outbox.drain();
    driver.outbox.close(going_away());
    assert_eq!(driver.wakes(), 2);
}

#[test]
fn a_driver_does_not_sleep_over_a_command() {
    let driver = Driver::new(10);
    driver.outbox.drain();
    let sleeps = |driver: &Driver| !driver.outbox.take_or_sleep(&mut VecDeque::new(), &driver.context());
    assert!(!sleeps(&driver));
    assert_eq!(driver.outbox.take_command(), Some(Command::Drain));
    assert!(sleeps(&driver));
}

#[test]
fn an_overflow_wakes_a_driver_that_sleeps_over_unwritten_output() {
    let driver = Driver::new(10);
    assert_eq!(driver.push(10), Ok(()));
    assert_eq!(driver.take(), [10]);
    assert!(driver.take().is_empty());
    assert_eq!(driver.push(1), Err(Rejected::Full));
    assert_eq!(driver.wakes(), 1);
}

#[test]
fn the_task_that_slept_last_is_woken() {
    let (first, second) = (Driver::new(10), Driver::new(10));
    assert!(first.take().is_empty());
    assert!(!first.outbox.take_or_sleep(&mut VecDeque::new(), &second.context()));
    assert_eq!(first.push(1), Ok(()));
    assert_eq!((first.wakes(), second.wakes()), (0, 1));
}

// === any use at all ===

#[derive(Debug, Clone)]
enum Op {
    Push(usize),
    Take,
    /// At most so many of the frames taken are written.
    Write(usize),
    Discard,
    Close,
    PushLast(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (1..60_usize).prop_map(Op::Push),
        1 => Just(Op::Push(500)),
        5 => Just(Op::Take),
        5 => (0..5_usize).prop_map(Op::Write),
        1 => Just(Op::Discard),
        1 => Just(Op::Close),
        1 => (1..60_usize).prop_map(Op::PushLast),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_bound_holds_and_every_byte_is_counted(ops in vec(any_op(), 0..60)) {
        const LIMIT: usize = 100;
        let driver = Driver::new(LIMIT);
        let (mut queue, mut taken, mut closed) = (Vec::new(), Vec::new(), false);
        for op in ops {
            let waiting = queue.iter().chain(&taken).sum::<usize>();
            match op {
                Op::Push(len) => {
                    let full = waiting > 0 && waiting + len > LIMIT;
                    let expected = match (closed, full) {
                        (true, _) => Err(Rejected::Closed),
                        (false, true) => Err(Rejected::Full),
                        (false, false) => Ok(()),
                    };
                    closed |= full;
                    queue.extend(expected.is_ok().then_some(len));
                    prop_assert_eq!(driver.push(len), expected);
                }
                Op::Take => {
                    prop_assert_eq!(driver.take(), queue.clone());
                    taken.append(&mut queue);
                }
                Op::Write(most) => {
                    let written: Vec<_> = taken.drain(..most.min(taken.len())).collect();
                    driver.wrote(written.len());
                }
                Op::Discard => {
                    driver.outbox.discard();
                    queue.clear();
                }
                Op::Close => {
                    driver.outbox.close(going_away());
                    closed = true;
                }
                Op::PushLast(len) => {
                    driver.outbox.push_last(frame(len).bytes);
                    queue.push(len);
                    closed = true;
                }
            }
            prop_assert_eq!(driver.queued(), queue.iter().chain(&taken).sum::<usize>());
            prop_assert_eq!(driver.outbox.is_closed(), closed);
        }
        let gauge = driver.gauge.clone();
        drop(driver);
        prop_assert_eq!(gauge.get(), 0, "what an outbox held is not counted after its end");
    }
}

// === the brake on fan-out ===

#[tokio::test(start_paused = true)]
async fn fan_out_is_not_held_back_by_64_lagging_drivers() {
    let load = load(&gauge());
    let lagging: Vec<Driver> = (0..MAX_WOKEN).map(|_| Driver::lagging(&load)).collect();
    assert_eq!(load.drivers_caught_up().now_or_never(), Some(()));
    drop(lagging);
}

#[tokio::test(start_paused = true)]
async fn fan_out_goes_on_as_soon_as_enough_drivers_have_run() {
    let load = load(&gauge());
    let lagging: Vec<Driver> = (0..MAX_WOKEN + 3).map(|_| Driver::lagging(&load)).collect();
    let started = Instant::now();
    let mut caught_up = Box::pin(load.drivers_caught_up());
    assert_eq!(caught_up.as_mut().now_or_never(), None);
    lagging[0].outbox.awake();
    // Running again, and taking or writing, makes it no more caught up.
    lagging[0].outbox.awake();
    lagging[1].take();
    lagging[1].wrote(1);
    assert_eq!(caught_up.as_mut().now_or_never(), None);
    lagging[1].outbox.awake();
    assert_eq!(caught_up.as_mut().now_or_never(), None);
    lagging[2].outbox.awake();
    tokio::time::timeout(Duration::from_secs(1), caught_up).await.expect("enough have run");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_outbox_is_dropped_lags_no_longer() {
    let load = load(&gauge());
    let mut lagging: Vec<Driver> = (0..=MAX_WOKEN).map(|_| Driver::lagging(&load)).collect();
    assert_eq!(load.drivers_caught_up().now_or_never(), None);
    lagging.pop();
    assert_eq!(load.drivers_caught_up().now_or_never(), Some(()));
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_connection_ends_lags_no_longer_though_the_outbox_lives_on() {
    let load = load(&gauge());
    let lagging: Vec<Driver> = (0..=MAX_WOKEN).map(|_| Driver::lagging(&load)).collect();
    lagging[0].outbox.seal();
    assert_eq!(load.drivers_caught_up().now_or_never(), Some(()));
}

#[tokio::test(start_paused = true)]
async fn drivers_that_never_run_hold_fan_out_back_for_20_milliseconds_only() {
    let load = load(&gauge());
    let lagging: Vec<Driver> = (0..=MAX_WOKEN).map(|_| Driver::lagging(&load)).collect();
    let started = Instant::now();
    tokio::time::timeout(Duration::from_secs(1), load.drivers_caught_up()).await.expect("it goes on by itself");
    let waited = started.elapsed();
    assert!((BRAKE_DEADLINE..BRAKE_DEADLINE * 2).contains(&waited), "waited for {waited:?}");
    drop(lagging);
}

// === what they use ===

/// Tests count memory in units: a frame of `n` takes `n` of them, whatever is added to its bytes.
const UNIT: usize = 1024;

fn frame(units: usize) -> Outgoing {
    Outgoing::own(Bytes::from(vec![0; units * UNIT - FRAME_OVERHEAD]))
}

fn pong(payload: &str) -> Bytes {
    encode_message(Opcode::Pong, payload.as_bytes())
}

/// An outbox with the task that drives it.
struct Driver {
    outbox: Outbox,
    gauge: IntGauge,
    task: Arc<Task>,
    waker: Waker,
    taken: Mutex<VecDeque<Outgoing>>,
}

#[derive(Default)]
struct Task {
    wakes: AtomicUsize,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.outbox.wrote(self.taken.lock().iter());
    }
}

impl Driver {
    /// Its limit is in units.
    fn new(limit: usize) -> Self {
        let gauge = gauge();
        Self::with(limit, load(&gauge), gauge)
    }

    fn with(limit: usize, load: Arc<NodeLoad>, gauge: IntGauge) -> Self {
        let task = Arc::new(Task::default());
        let outbox = Outbox::new(limit * UNIT, load);
        Self { outbox, gauge, waker: Waker::from(Arc::clone(&task)), task, taken: Mutex::default() }
    }

    /// One that slept, got a frame, and has not run since.
    fn lagging(load: &Arc<NodeLoad>) -> Self {
        let driver = Self::with(10, Arc::clone(load), gauge());
        assert!(driver.take().is_empty());
        assert_eq!((driver.push(1), driver.wakes()), (Ok(()), 1));
        driver
    }

    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    fn push(&self, units: usize) -> Result<(), Rejected> {
        self.outbox.push(frame(units))
    }

    fn pong(&self, payload: &str) {
        self.outbox.pong(pong(payload));
    }

    /// The sizes of what was queued; sleeps if there is nothing.
    fn take(&self) -> Vec<usize> {
        let mut queue = VecDeque::new();
        self.outbox.take_or_sleep(&mut queue, &self.context());
        let sizes = queue.iter().map(|outgoing| (outgoing.bytes.len() + FRAME_OVERHEAD) / UNIT).collect();
        self.taken.lock().append(&mut queue);
        sizes
    }

    /// So many of the frames taken are written.
    fn wrote(&self, frames: usize) {
        let written: Vec<_> = self.taken.lock().drain(..frames).collect();
        self.outbox.wrote(written.iter());
    }

    fn queued(&self) -> usize {
        let bytes: usize = self.gauge.get().try_into().expect("a count");
        assert_eq!(bytes % UNIT, 0, "frames of whole units");
        bytes / UNIT
    }

    fn wakes(&self) -> usize {
        self.task.wakes.load(Ordering::Relaxed)
    }
}

/// Without limits, its outbound memory counted into a gauge.
fn load(outbound: &IntGauge) -> Arc<NodeLoad> {
    NodeLoad::new(Budget::new(gauge(), usize::MAX), Budget::new(outbound.clone(), usize::MAX))
}

fn gauge() -> IntGauge {
    IntGauge::new("memory", "Memory").expect("a valid name")
}

fn going_away() -> CloseFrame {
    CloseFrame::new(CloseCode::GOING_AWAY, "the node goes away")
}
