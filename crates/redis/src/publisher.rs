//! The way of a publish to Redis.
//!
//! Publishes wait in lanes: one for each room in a cluster, since a script may touch one slot only, and rooms
//! whose slot is on its way would hold up one another; one in all for a single server. A lane has one batch under way at a time, so its events keep their order through
//! every retry; what comes meanwhile makes the next batch. So a lone event is sent at once, and a burst costs
//! Redis one script for many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::error::{Error, ErrorKind};
use fred::types::Value;
use fred::types::config::Server;
use parking_lot::Mutex;
use roomcast_core::{BoxFuture, BrokerError, Envelope, RoomName};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::commands::{Commands, Script};
use crate::keys::{Keys, is_of_nodes};
use crate::message::{EVENT_OVERHEAD, Encoder};
use crate::options::{Backlog, BacklogRules};
use crate::topology::{Redirection, Topology};

const SCRIPT: &str = include_str!("publish.lua");

/// How many events may wait to be published.
const MAX_WAITING_EVENTS: usize = 65_536;

/// How many bytes of events may wait to be published; one event may always wait.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// How many events one script publishes at most. Redis serves nobody else meanwhile: about 2 ms.
const MAX_BATCH_EVENTS: usize = 1000;

/// How many bytes one script publishes at most; a larger event goes alone.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Events of one room go into messages of up to so many bytes; a larger event has one of its own.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A message over this is not kept in a backlog: a hundred of them would be more than Redis lets wait for
/// a subscriber.
const MAX_KEPT_BYTES: usize = 128 * 1024;

/// How long a publish is tried before it fails, and its server counts as down.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long a batch is tried at least.
const MIN_TRY: Duration = Duration::from_secs(1);

/// How long to wait before a batch is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long Redis remembers the position of a room that nobody publishes to.
const POSITION_AGE: Duration = Duration::from_secs(2 * 3600);

/// Publishes of one node.
pub(crate) struct Publisher {
    commands: Arc<Commands>,
    keys: Keys,
    backlog: BacklogRules,
    digest: String,
    runtime: Handle,
    state: Mutex<State>,
    /// Servers are not what they were, or slots not where they were.
    topology_wanted: AtomicBool,
}

#[derive(Default)]
struct State {
    lanes: HashMap<LaneKey, VecDeque<Waiting>>,
    topology: Option<Topology>,
    /// Servers that did not take a publish in time, with the reason. Only probes are sent to them.
    down: HashMap<Server, String>,
    last_number: u64,
    waiting_events: usize,
    waiting_bytes: usize,
    closed: bool,
}

/// The room of a lane; `None` for the lane of all rooms.
type LaneKey = Option<RoomName>;

/// A publish that waits, or is under way.
struct Waiting {
    number: u64,
    envelope: Envelope,
    deadline: Instant,
    is_probe: bool,
    answer: oneshot::Sender<Result<(), BrokerError>>,
}

/// What became of a batch, and by whom: the server that was asked last.
struct Sent {
    server: Option<Server>,
    result: Result<(), Error>,
}

impl Publisher {
    pub(crate) fn new(commands: Arc<Commands>, keys: Keys, backlog: BacklogRules) -> Arc<Self> {
        use sha1::Digest;
        let digest = sha1::Sha1::digest(SCRIPT).iter().map(|byte| format!("{byte:02x}")).collect();
        let (runtime, state, topology_wanted) = (Handle::current(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { commands, keys, backlog, digest, runtime, state, topology_wanted })
    }

    /// Takes a publish into its place in the order.
    pub(crate) fn publish(self: &Arc<Self>, envelope: Envelope) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.accept(envelope, false)
    }

    /// As [`publish`](Self::publish), but also to a server that counts as down: so it is seen to be up again.
    pub(crate) fn probe(self: &Arc<Self>, envelope: Envelope) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.accept(envelope, true)
    }

    fn accept(self: &Arc<Self>, envelope: Envelope, is_probe: bool) -> BoxFuture<'static, Result<(), BrokerError>> {
        match self.enqueue(envelope, is_probe) {
            Ok(answer) => Box::pin(async { answer.await.unwrap_or(Err(BrokerError::Closed)) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        envelope: Envelope,
        is_probe: bool,
    ) -> Result<oneshot::Receiver<Result<(), BrokerError>>, BrokerError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if !is_probe {
            state.check_up(&envelope.room)?;
        }
        let size = envelope.size();
        let is_full = state.waiting_events >= MAX_WAITING_EVENTS || state.waiting_bytes + size > MAX_WAITING_BYTES;
        if is_full && state.waiting_events > 0 {
            return Err(BrokerError::Overloaded { waiting: state.waiting_events });
        }
        state.waiting_events += 1;
        state.waiting_bytes += size;
        state.last_number += 1;
        let (answer, answered) = oneshot::channel();
        let waiting =
            Waiting { number: state.last_number, envelope, deadline: Instant::now() + DEADLINE, is_probe, answer };
        let lane = state.lane_of(&waiting.envelope.room);
        let is_new = !state.lanes.contains_key(&lane);
        state.lanes.entry(lane.clone()).or_default().push_back(waiting);
        if is_new {
            let publisher = Arc::clone(self);
            self.runtime.spawn(async move { publisher.work(lane).await });
        }
        Ok(answered)
    }

    /// Empties a lane.
    async fn work(&self, lane: LaneKey) {
        while let Some(batch) = self.next_batch(&lane) {
            let sent = self.send(&batch).await;
            self.settle(batch, &sent);
        }
    }

    /// The next events of a lane. `None`: there are none, and the lane is gone.
    fn next_batch(&self, lane: &LaneKey) -> Option<Vec<Waiting>> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.lanes.get(lane).and_then(VecDeque::front) {
            bytes += next.envelope.size();
            if !batch.is_empty() && (batch.len() >= MAX_BATCH_EVENTS || bytes > MAX_BATCH_BYTES) {
                break;
            }
            let refused = match next.is_probe {
                true => Ok(()),
                false if next.deadline <= now => Err(BrokerError::Overloaded { waiting: state.waiting_events }),
                false => state.check_up(&next.envelope.room),
            };
            let Some(next) = state.lanes.get_mut(lane).and_then(VecDeque::pop_front) else { break };
            match refused {
                Ok(()) => batch.push(next),
                Err(error) => state.answer(next, Err(error)),
            }
        }
        if batch.is_empty() {
            state.lanes.remove(lane);
            return None;
        }
        Some(batch)
    }

    /// Publishes a batch. After an error that leaves open whether it was done, it is sent again: the nodes
    /// know its events by their numbers and deliver them once.
    async fn send(&self, batch: &[Waiting]) -> Sent {
        let script = self.script(batch);
        // However long its oldest event has waited, it gets a try.
        let at_least = Instant::now() + MIN_TRY;
        let oldest = batch.iter().map(|waiting| waiting.deadline).min();
        let deadline = oldest.map_or(at_least, |oldest| oldest.max(at_least));
        let mut sent =
            Sent { server: None, result: Err(Error::new(ErrorKind::Timeout, "Redis did not answer in time")) };
        let mut redirection = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return sent;
            }
            let owner = || batch.first().and_then(|first| self.state.lock().owner_of(&first.envelope.room));
            let (server, asking) = match redirection.take() {
                Some(Redirection::Moved(server)) => (Some(server), false),
                Some(Redirection::Ask(server)) => (Some(server), true),
                None => (owner(), false),
            };
            let result = match &server {
                Some(server) => self.commands.run(server, &script, asking, left).await,
                None => Err(Error::new(ErrorKind::Cluster, "nobody owns the room's slot")),
            };
            let retries = match &result {
                Ok(()) => false,
                Err(error) => {
                    redirection = server.as_ref().and_then(|server| Redirection::of(error.details(), server));
                    is_of_the_server(error) || is_of_the_slot(error)
                }
            };
            sent = Sent { server, result };
            if !retries {
                return sent;
            }
            if !matches!(redirection, Some(Redirection::Ask(_))) {
                self.topology_wanted.store(true, Ordering::Release);
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Puts the events of each room together: rooms are not ordered among each other.
    fn script(&self, batch: &[Waiting]) -> Script<'_> {
        let mut messages: Vec<(&RoomName, Encoder)> = Vec::new();
        let mut open: HashMap<&RoomName, usize> = HashMap::new();
        for Waiting { number, envelope, .. } in batch {
            let size = EVENT_OVERHEAD + envelope.event.len() + envelope.payload.len();
            let fits = |index: &usize| {
                let encoder = &messages[*index].1;
                encoder.origin == envelope.origin && encoder.len() + size <= MAX_MESSAGE_BYTES
            };
            let index = open.get(&envelope.room).copied().filter(fits).unwrap_or_else(|| {
                messages.push((&envelope.room, Encoder::new(envelope.origin)));
                messages.len() - 1
            });
            open.insert(&envelope.room, index);
            messages[index].1.push(*number, &envelope.event, &envelope.payload, envelope.accepted_at);
        }
        let mut keys = Vec::with_capacity(messages.len() * 2);
        let mut arguments = Vec::with_capacity(1 + messages.len() * 5);
        arguments.push(millis(POSITION_AGE));
        for (room, encoder) in messages {
            let backlog = if is_of_nodes(room) { Backlog::NONE } else { self.backlog.of(room) };
            let kept = if encoder.len() > MAX_KEPT_BYTES { 0 } else { backlog.events };
            let position = self.keys.position(room);
            // While a slot is on its way, Redis refuses a script one of whose keys does not exist.
            let backlog_key = if backlog.events == 0 { position.clone() } else { self.keys.backlog(room) };
            keys.extend([position, backlog_key]);
            arguments.push(self.keys.channel(room).into());
            arguments.extend([Value::Integer(encoder.count.cast_signed()), Value::Integer(kept.into())]);
            arguments.extend([millis(backlog.age), Value::Bytes(encoder.finish())]);
        }
        Script { text: SCRIPT, digest: &self.digest, keys, arguments }
    }

    /// Tells everybody in a batch, and remembers whether the server that was asked last works.
    fn settle(&self, batch: Vec<Waiting>, sent: &Sent) {
        let mut state = self.state.lock();
        if let Some(server) = &sent.server {
            match &sent.result {
                Ok(()) => drop(state.down.remove(server)),
                Err(error) if is_of_the_server(error) => drop(state.down.insert(server.clone(), error.to_string())),
                Err(_) => {}
            }
        }
        for waiting in batch {
            let unavailable = |error: &Error| BrokerError::Unavailable { reason: error.to_string() };
            state.answer(waiting, sent.result.as_ref().copied().map_err(unavailable));
        }
    }

    /// Whether the topology must be asked for, because servers said so.
    pub(crate) fn take_topology_wanted(&self) -> bool {
        self.topology_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn set_topology(&self, topology: Topology) {
        let mut state = self.state.lock();
        let servers = topology.servers();
        state.down.retain(|server, _| servers.contains(server));
        state.topology = Some(topology);
    }

    /// Why a server does not take publishes, if it does not.
    pub(crate) fn is_down(&self, server: &Server) -> Option<String> {
        self.state.lock().down.get(server).cloned()
    }

    /// Takes no more publishes. Those that wait are sent.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }
}

impl State {
    fn lane_of(&self, room: &RoomName) -> LaneKey {
        self.topology.as_ref().is_some_and(Topology::has_slots).then(|| room.clone())
    }

    fn owner_of(&self, room: &RoomName) -> Option<Server> {
        self.topology.as_ref()?.owner(Keys::slot(room)).cloned()
    }

    /// Fails at once if the room's server is known to be down, or no server is known.
    fn check_up(&self, room: &RoomName) -> Result<(), BrokerError> {
        let reason = match &self.topology {
            None => Some("Redis has not been reached yet".to_owned()),
            Some(_) if self.down.is_empty() => None,
            Some(topology) => topology.owner(Keys::slot(room)).and_then(|owner| self.down.get(owner)).cloned(),
        };
        reason.map_or(Ok(()), |reason| Err(BrokerError::Unavailable { reason }))
    }

    fn answer(&mut self, waiting: Waiting, result: Result<(), BrokerError>) {
        self.waiting_events -= 1;
        self.waiting_bytes -= waiting.envelope.size();
        // Who asked may not wait for the outcome.
        let _ = waiting.answer.send(result);
    }
}

fn millis(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// Whether the connection or the server is the trouble, not what was asked. It may pass.
fn is_of_the_server(error: &Error) -> bool {
    // The last is fred's own, when a connection has ended too often under one command.
    const PREFIXES: [&str; 6] =
        ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "Too many failed write attempts"];
    let of_the_way =
        matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Sentinel);
    of_the_way || begins_with_one_of(error, &PREFIXES)
}

/// Whether the slot is on its way to another server. It passes.
fn is_of_the_slot(error: &Error) -> bool {
    let of_routing = matches!(error.kind(), ErrorKind::Cluster | ErrorKind::Routing);
    of_routing || begins_with_one_of(error, &["TRYAGAIN", "MOVED", "ASK"])
}

fn begins_with_one_of(error: &Error, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| error.details().starts_with(prefix))
}
