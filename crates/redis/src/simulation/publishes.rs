//! Publishes to a server that loses its scripts, replies late or not at all, and executes commands
//! that were sent long ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::config::Server;
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_core::{BrokerError, NodeId, Position, Publish, RoomName};
use roomcast_protocol::Name;
use tokio::sync::oneshot::error::TryRecvError;

use super::script::{Moment, PublishedMessage, RoomKeys};
use crate::state::attempts::{Attempt, Attempts, Ran, Step};
use crate::state::placement::Place;
use crate::state::publish_queue::{Answered, DEADLINE, LaneKey, PublishQueue, Waiting, deadline_of};
use crate::state::topology::Topology;

/// When the only epoch of the room begins, in microseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000_000;

/// The resolution of simulated time.
const STEP: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
enum Op {
    Publish { count: usize },
    LoseScripts,
    Cut,
    Heal,
    Delay { millis: u64 },
    Pass { millis: u64 },
}

/// A command on the wire.
struct Sent {
    at: Instant,
    attempt: Attempt,
    publish: PublishedMessage,
    /// Whether the sender no longer waits for the reply.
    is_abandoned: bool,
}

/// A batch that is under way.
struct UnderWay {
    batch: Vec<Waiting>,
    attempts: Attempts,
    /// Until when there is nothing to do: the end of the attempt or of the pause.
    until: Instant,
    is_sent: bool,
}

/// A node's publishes to one room, and the server.
struct Way {
    now: Instant,
    queue: PublishQueue,
    lane: Option<LaneKey>,
    under_way: Option<UnderWay>,
    /// The publishes that wait, with their numbers and the times when they began.
    asked: Vec<(u64, Instant, Answered)>,
    numbers: u64,
    wire: VecDeque<Sent>,
    is_cut: bool,
    delay: Duration,
    has_script: bool,
    room: RoomKeys,
    /// The numbers of all events, in the order in which the server published them.
    published: Vec<u64>,
    refused: usize,
}

impl Way {
    fn new() -> Self {
        let mut queue = PublishQueue::default();
        queue.set_topology(Topology::Single(Server::new("server", 6379)));
        Self {
            now: Instant::now(),
            queue,
            lane: None,
            under_way: None,
            asked: Vec::new(),
            numbers: 0,
            wire: VecDeque::new(),
            is_cut: false,
            delay: Duration::from_millis(1),
            has_script: false,
            room: RoomKeys::default(),
            published: Vec::new(),
            refused: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Publish { count } => (0..count).for_each(|_| self.publish(false)),
            Op::LoseScripts => self.has_script = false,
            Op::Cut => self.is_cut = true,
            Op::Heal => self.is_cut = false,
            Op::Delay { millis } => self.delay = Duration::from_millis(millis),
            Op::Pass { millis } => self.pass(Duration::from_millis(millis)),
        }
    }

    fn publish(&mut self, is_probe: bool) {
        let publish = Publish {
            origin: NodeId::from_u64(1),
            room: RoomName::new("room").expect("a valid name"),
            event: Name::default(),
            payload: Bytes::new(),
            published_at: self.now,
            trace: None,
        };
        match self.queue.push(publish, is_probe, self.now) {
            Ok((answered, lane)) => {
                self.numbers += 1; // as the queue does
                self.asked.push((self.numbers, self.now, answered));
                self.lane = lane.or(self.lane.take());
            }
            Err(_) => self.refused += 1,
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.serve();
            self.work();
            self.look();
        }
    }

    /// Executes the commands that have reached the server.
    fn serve(&mut self) {
        while !self.is_cut
            && let Some(sent) = self.wire.pop_front_if(|sent| sent.at + self.delay <= self.now)
        {
            let ran = if sent.attempt.with_text || self.has_script {
                self.has_script = true;
                let moment = Moment { micros: EPOCH, writer: "0" };
                let published = self.room.publish(moment, &sent.publish, true);
                if published.sent.is_some() {
                    let first = sent.publish.number + 1 - sent.publish.count;
                    self.published.extend(first..=sent.publish.number);
                }
                Ok(vec![Ok(published.placement)])
            } else {
                Err(Error::new(ErrorKind::Unknown, "NOSCRIPT No matching script. Please use EVAL."))
            };
            if !sent.is_abandoned {
                self.on_result(ran);
            }
        }
    }

    /// Does the work of a lane's task.
    fn work(&mut self) {
        if self.under_way.is_none()
            && let Some(lane) = &self.lane
        {
            match self.queue.next_batch(lane, self.now) {
                Some(batch) => {
                    let attempts = Attempts::until(deadline_of(&batch, self.now));
                    self.under_way = Some(UnderWay { batch, attempts, until: self.now, is_sent: false });
                }
                None => self.lane = None,
            }
        }
        let Some(UnderWay { until, is_sent, .. }) = self.under_way.as_ref() else { return };
        if *until > self.now {
            return;
        }
        if *is_sent {
            self.wire.iter_mut().for_each(|sent| sent.is_abandoned = true);
            self.on_result(Err(Error::new(ErrorKind::Timeout, "Request timed out.")));
        } else {
            let owner = Some(Server::new("server", 6379));
            let step = self.under_way.as_mut().map(|under_way| under_way.attempts.next(owner, self.now));
            self.take(step);
        }
    }

    fn on_result(&mut self, ran: Ran) {
        let owner = Some(Server::new("server", 6379));
        let step = self.under_way.as_mut().map(|under_way| under_way.attempts.on_result(ran, owner, self.now));
        self.take(step);
    }

    fn take(&mut self, step: Option<Step>) {
        let (Some(step), Some(mut under_way)) = (step, self.under_way.take()) else { return };
        match step {
            Step::Send(attempt) => {
                let number = under_way.batch.last().expect("a batch has events").number;
                let publish = PublishedMessage {
                    origin: 1,
                    number,
                    count: under_way.batch.len() as u64,
                    kept: 100,
                    kept_ms: u64::MAX / 2,
                    max_bytes: u64::MAX / 16,
                    position_ms: u64::MAX / 2,
                    unread_ms: 0,
                    events: number.to_string().into(),
                };
                (under_way.until, under_way.is_sent) = (self.now + attempt.time, true);
                self.wire.push_back(Sent { at: self.now, attempt, publish, is_abandoned: false });
                self.under_way = Some(under_way);
            }
            Step::Pause(time) => {
                (under_way.until, under_way.is_sent) = (self.now + time, false);
                self.under_way = Some(under_way);
            }
            Step::Finish(outcome) => {
                let places: Vec<_> =
                    (0..under_way.batch.len() as u64).map(|event| Place { message: 0, event }).collect();
                self.queue.settle(under_way.batch, &places, outcome);
            }
        }
    }

    /// Checks that no caller waits for longer than is documented, and that each gets its event's
    /// position.
    fn look(&mut self) {
        let (now, published) = (self.now, &self.published);
        self.asked.retain_mut(|(number, since, answered)| match answered.try_recv() {
            Ok(Ok(position)) => {
                let offset = published.iter().position(|known| known == number).map(|index| index as u64 + 1);
                assert_eq!(Some(position), offset.map(|offset| Position { epoch: EPOCH, offset }), "event {number}");
                false
            }
            Ok(Err(error)) => {
                assert!(error != BrokerError::Closed);
                false
            }
            Err(TryRecvError::Empty) => {
                assert!(now.duration_since(*since) <= DEADLINE + STEP, "a publish waits for too long");
                true
            }
            Err(TryRecvError::Closed) => panic!("the outcome of a publish will never be reported"),
        });
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..20_usize).prop_map(|count| Op::Publish { count }),
        1 => Just(Op::LoseScripts),
        1 => Just(Op::Cut),
        2 => Just(Op::Heal),
        1 => (1..2500_u64).prop_map(|millis| Op::Delay { millis }),
        6 => (10..1500_u64).prop_map(|millis| Op::Pass { millis }),
    ]
}

/// Redis has lost its scripts and reports this late. Then the link is cut.
#[test]
fn a_script_that_is_sent_again_gets_no_time_of_its_own() {
    let mut way = Way::new();
    way.apply(&Op::Delay { millis: 2500 });
    way.apply(&Op::Publish { count: 1 });
    way.apply(&Op::Pass { millis: 2600 });
    way.apply(&Op::Cut);
    way.apply(&Op::Pass { millis: 3000 });
    assert!(way.asked.is_empty());
}

#[test]
fn a_server_that_was_down_is_used_again_after_a_probe() {
    let mut way = Way::new();
    for op in [Op::Cut, Op::Publish { count: 3 }, Op::Pass { millis: 3100 }, Op::Publish { count: 1 }] {
        way.apply(&op);
    }
    assert_eq!(way.refused, 1, "it counts as down");
    way.apply(&Op::Heal);
    way.publish(true);
    for op in [Op::Pass { millis: 100 }, Op::Publish { count: 1 }, Op::Pass { millis: 100 }] {
        way.apply(&op);
    }
    assert_eq!(way.refused, 1);
    assert!(way.asked.is_empty());
}

proptest! {
    #[test]
    fn a_publish_is_answered_in_time_and_taken_once_in_order(ops in vec(any_op(), 0..60)) {
        let mut way = Way::new();
        ops.iter().for_each(|op| way.apply(op));
        way.apply(&Op::Heal);
        way.apply(&Op::Pass { millis: 4000 });
        prop_assert!(way.asked.is_empty());
        prop_assert!(way.published.is_sorted_by(|a, b| a < b), "{:?}", way.published);
    }
}
