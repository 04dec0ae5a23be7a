//! Publishes on their way to Redis, with their order, limits, deadlines and outcomes. This module
//! does no I/O, and time is an argument.
//!
//! Publishes wait in lanes:
//!
//! * In a cluster, each room has a lane. A script may access only one slot, and a room whose slot
//!   is being moved must not block others.
//! * Otherwise, there is one lane for all rooms except those of the nodes, which a flood of events
//!   must not block.
//!
//! A lane has at most one batch under way, so its events keep their order through all retries.
//! Events that arrive meanwhile form the next batch. A single event is therefore sent at once, and
//! many events in a burst need only one script.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use fred::types::config::Server;
use roomcast_core::{BrokerError, MAX_WAITING_BYTES, MAX_WAITING_EVENTS, Position, Publish, RoomName};
use tokio::sync::oneshot;

use crate::state::attempts::{Outcome, is_of_the_server};
use crate::state::keys::Keys;
use crate::state::placement::Place;
use crate::state::topology::Topology;

/// How many messages between nodes may wait beyond [`MAX_WAITING_EVENTS`] and
/// [`MAX_WAITING_BYTES`]. Heartbeats, requests and probes must be accepted even when clients have
/// filled the queue.
const NODES_RESERVE_EVENTS: usize = 16_384;
const NODES_RESERVE_BYTES: usize = 16 * 1024 * 1024;

/// How many events one script publishes at most. While it runs, for about 2 ms, Redis does nothing
/// else.
const MAX_SCRIPT_EVENTS: usize = 1000;

/// How many bytes one script publishes at most. A larger event is sent alone.
const MAX_SCRIPT_BYTES: usize = 1024 * 1024;

/// The time within which the outcome of a publish is reported. A server that has not accepted the
/// publish by then counts as down.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// If less time than this is left, a publish is rejected without being sent. A server that is only
/// slow must not count as down because publishes have waited in the queue for too long.
const MIN_TRY: Duration = Duration::from_millis(500);

/// The room of a lane. `None` means the lane of all rooms without a lane of their own.
pub(crate) type LaneKey = Option<RoomName>;

/// The outcome of a publish, once it is available.
pub(crate) type Answered = oneshot::Receiver<Result<Position, BrokerError>>;

/// The publishes that wait, and the servers to which they are sent.
#[derive(Default)]
pub(crate) struct PublishQueue {
    lanes: HashMap<LaneKey, VecDeque<Waiting>>,
    topology: Option<Topology>,
    /// Until when nothing is sent.
    held_until: Option<Instant>,
    /// Servers that did not accept a publish in time, with the reasons. They receive only probes.
    down: HashMap<Server, String>,
    last_number: u64,
    waiting_events: usize,
    waiting_bytes: usize,
    closed: bool,
}

/// A publish that waits or is under way.
pub(crate) struct Waiting {
    /// The publish's number, which increases with each publish of this node.
    pub(crate) number: u64,
    pub(crate) publish: Publish,
    deadline: Instant,
    is_probe: bool,
    answer: oneshot::Sender<Result<Position, BrokerError>>,
}

impl PublishQueue {
    /// Queues a publish. If this returns a lane, the lane is new, and the caller must start to
    /// empty it.
    ///
    /// A probe is also sent to a server that counts as down, to find out when it is up again.
    pub(crate) fn push(
        &mut self,
        publish: Publish,
        is_probe: bool,
        now: Instant,
    ) -> Result<(Answered, Option<LaneKey>), BrokerError> {
        if self.closed {
            return Err(BrokerError::Closed);
        }
        if !is_probe {
            self.check_up(&publish.room)?;
        }
        let size = publish.size();
        let reserve = usize::from(publish.room.is_of_nodes());
        let max_events = MAX_WAITING_EVENTS + reserve * NODES_RESERVE_EVENTS;
        let max_bytes = MAX_WAITING_BYTES + reserve * NODES_RESERVE_BYTES;
        let is_full = self.waiting_events >= max_events || self.waiting_bytes + size > max_bytes;
        if is_full && self.waiting_events > 0 {
            return Err(BrokerError::Overloaded { waiting: self.waiting_events });
        }
        self.waiting_events += 1;
        self.waiting_bytes += size;
        self.last_number += 1;
        let (answer, answered) = oneshot::channel();
        let lane = self.lane_of(&publish.room);
        let is_new = !self.lanes.contains_key(&lane);
        let waiting = Waiting { number: self.last_number, publish, deadline: now + DEADLINE, is_probe, answer };
        self.lanes.entry(lane.clone()).or_default().push_back(waiting);
        Ok((answered, is_new.then_some(lane)))
    }

    /// Returns the next events of a lane. Returns `None` if there are none, and removes the lane.
    pub(crate) fn next_batch(&mut self, lane: &LaneKey, now: Instant) -> Option<Vec<Waiting>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.lanes.get(lane).and_then(VecDeque::front) {
            bytes += next.publish.size();
            if !batch.is_empty() && (batch.len() >= MAX_SCRIPT_EVENTS || bytes > MAX_SCRIPT_BYTES) {
                break;
            }
            let refused = match next.deadline.saturating_duration_since(now) < MIN_TRY {
                true => Err(BrokerError::Overloaded { waiting: self.waiting_events }),
                false if next.is_probe => Ok(()),
                false => self.check_up(&next.publish.room),
            };
            let Some(next) = self.lanes.get_mut(lane).and_then(VecDeque::pop_front) else { break };
            match refused {
                Ok(()) => batch.push(next),
                Err(error) => self.answer(next, Err(error)),
            }
        }
        if batch.is_empty() {
            self.lanes.remove(lane);
            return None;
        }
        Some(batch)
    }

    /// Reports the outcomes of a batch's publishes, and records whether the server to which it was
    /// sent last works. `places` contains each event's place in the script.
    pub(crate) fn settle(&mut self, batch: Vec<Waiting>, places: &[Place], outcome: Outcome) {
        if let Some(server) = outcome.server {
            match &outcome.result {
                Ok(_) => drop(self.down.remove(&server)),
                Err(error) if is_of_the_server(error) => drop(self.down.insert(server, error.details().to_owned())),
                Err(_) => {}
            }
        }
        let unavailable = |reason: &str| Err(BrokerError::Unavailable { reason: reason.to_owned() });
        for (waiting, place) in batch.into_iter().zip(places) {
            let answer = match &outcome.result {
                Ok(messages) => match messages.get(place.message) {
                    Some(Ok(placement)) => Ok(placement.position(place.event)),
                    Some(Err(reason)) => unavailable(reason),
                    None => unavailable("the reply to the publish script is too short"),
                },
                Err(error) => unavailable(error.details()),
            };
            self.answer(waiting, answer);
        }
    }

    /// Returns the server that owns a room's slot.
    pub(crate) fn owner_of(&self, room: &RoomName) -> Option<Server> {
        self.topology.as_ref()?.owner(Keys::slot(room)).cloned()
    }

    pub(crate) fn set_topology(&mut self, topology: Topology) {
        let servers = topology.servers();
        self.down.retain(|server, _| servers.contains(server));
        self.topology = Some(topology);
    }

    /// Holds back publishes until this time.
    pub(crate) fn hold_until(&mut self, time: Instant) {
        self.held_until = Some(time);
    }

    /// Returns for how long publishes are held back.
    pub(crate) fn hold(&self, now: Instant) -> Option<Duration> {
        self.held_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Returns why a server does not accept publishes, or `None` if it does.
    pub(crate) fn is_down(&self, server: &Server) -> Option<&String> {
        self.down.get(server)
    }

    /// Accepts no more publishes. Those that wait are still sent.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    fn lane_of(&self, room: &RoomName) -> LaneKey {
        let has_slots = self.topology.as_ref().is_some_and(Topology::has_slots);
        (has_slots || room.is_of_nodes()).then(|| room.clone())
    }

    /// Returns an error if the room's server is down, or if no server is known.
    fn check_up(&self, room: &RoomName) -> Result<(), BrokerError> {
        let reason = match &self.topology {
            None => Some("Redis has not been reached yet".to_owned()),
            Some(_) if self.down.is_empty() => None,
            Some(topology) => topology.owner(Keys::slot(room)).and_then(|owner| self.down.get(owner)).cloned(),
        };
        reason.map_or(Ok(()), |reason| Err(BrokerError::Unavailable { reason }))
    }

    fn answer(&mut self, waiting: Waiting, result: Result<Position, BrokerError>) {
        self.waiting_events -= 1;
        self.waiting_bytes -= waiting.publish.size();
        // The caller may have stopped waiting for the outcome.
        let _ = waiting.answer.send(result);
    }
}

/// Returns the time by which the outcomes of all publishes of a batch must be reported.
pub(crate) fn deadline_of(batch: &[Waiting], now: Instant) -> Instant {
    batch.iter().map(|waiting| waiting.deadline).min().unwrap_or(now)
}
