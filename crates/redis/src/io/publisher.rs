//! The I/O around the [`PublishQueue`]. Batches become scripts, which are sent to Redis.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::types::Value;
use fred::types::config::Server;
use futures_util::FutureExt;
use parking_lot::Mutex;
use roomcast_core::trace::{CONTINUED, continued};
use roomcast_core::{BoxFuture, BrokerError, MAX_BATCH_BYTES, Position, Publish, RoomName};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{Instrument, Span, debug_span};

use crate::io::commands::{Commands, Script, digest};
use crate::metrics::RedisMetrics;
use crate::options::{HistoryRules, Retention};
use crate::state::attempts::{Attempts, Outcome, Step};
use crate::state::keys::{Keys, PROBES};
use crate::state::message::{EVENT_OVERHEAD, Encoder};
use crate::state::placement::Place;
use crate::state::publish_queue::{LaneKey, PublishQueue, Waiting, deadline_of};
use crate::state::seal::Seal;
use crate::state::stored::PUBLISH;
use crate::state::topology::Topology;

/// A larger message is not kept in a history. A hundred of them would exceed the output that Redis
/// buffers for a subscriber.
const MAX_KEPT_BYTES: usize = 128 * 1024;

/// How long Redis keeps the position of a room without publishes.
const POSITION_AGE: Duration = Duration::from_secs(2 * 3600);

/// The same for a room that no node has read, so that names which clients invent cannot fill Redis.
/// It exceeds the time that a node takes to return after a short interruption.
const UNREAD_POSITION_AGE: Duration = Duration::from_secs(5 * 60);

/// The retention of a probe room. It makes probes prove that the node may use all commands that it
/// needs.
const PROBE_RETENTION: Retention = Retention { events: 1, age: Duration::from_secs(30) };

/// The publishes of a node.
pub(crate) struct Publisher {
    commands: Arc<Commands>,
    keys: Keys,
    seal: Seal,
    history: HistoryRules,
    history_bytes: usize,
    metrics: RedisMetrics,
    digest: String,
    runtime: Handle,
    queue: Mutex<PublishQueue>,
    /// Whether the topology must be requested, because a server or the owner of a slot has changed.
    topology_wanted: AtomicBool,
    /// Notified when the task of a lane has panicked, because its publishes would wait forever.
    pub(crate) failed: Notify,
}

impl Publisher {
    pub(crate) fn new(
        commands: Arc<Commands>,
        keys: Keys,
        seal: Seal,
        history: HistoryRules,
        history_bytes: usize,
        metrics: RedisMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            commands,
            keys,
            seal,
            history,
            history_bytes,
            metrics,
            digest: digest(PUBLISH),
            runtime: Handle::current(),
            queue: Mutex::default(),
            topology_wanted: AtomicBool::new(false),
            failed: Notify::new(),
        })
    }

    /// Accepts a publish, and gives it its place in the order.
    pub(crate) fn publish(self: &Arc<Self>, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.accept(publish, false)
    }

    /// Like [`publish`](Self::publish), but also sends to a server that counts as down, in order to
    /// find out whether it is up again.
    pub(crate) fn probe(self: &Arc<Self>, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.accept(publish, true)
    }

    fn accept(self: &Arc<Self>, publish: Publish, is_probe: bool) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let pushed = self.queue.lock().push(publish, is_probe, Instant::now());
        match pushed {
            Ok((answered, new_lane)) => {
                if let Some(lane) = new_lane {
                    self.runtime.spawn(Arc::clone(self).work_supervised(lane));
                }
                Box::pin(async { answered.await.unwrap_or(Err(BrokerError::Closed)) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    async fn work_supervised(self: Arc<Self>, lane: LaneKey) {
        if AssertUnwindSafe(self.work(lane)).catch_unwind().await.is_err() {
            self.failed.notify_one();
        }
    }

    /// Sends the publishes of a lane until it is empty.
    async fn work(&self, lane: LaneKey) {
        loop {
            let next = self.queue.lock().next_batch(&lane, Instant::now());
            let Some(batch) = next else { return };
            let (script, places) = self.script(&batch);
            let outcome = self.send(&batch, &script).instrument(batch_span(&batch)).await;
            drop(script);
            self.queue.lock().settle(batch, &places, outcome);
        }
    }

    async fn send(&self, batch: &[Waiting], script: &Script<'_>) -> Outcome {
        let owner = || batch.first().and_then(|first| self.owner_of(&first.publish.room));
        let mut attempts = Attempts::until(deadline_of(batch, Instant::now()));
        let mut step = attempts.next(owner(), Instant::now());
        loop {
            let next = match step {
                Step::Send(attempt) => {
                    let hold = self.queue.lock().hold(Instant::now());
                    if let Some(time) = hold {
                        tokio::time::sleep(time.min(attempt.time)).await;
                        step = attempts.next(owner(), Instant::now());
                        continue;
                    }
                    let published = self.commands.publish(script, &attempt).await;
                    let ran = published.map(|published| {
                        self.metrics.history_dropped.inc_by(published.dropped);
                        published.messages
                    });
                    attempts.on_result(ran, owner(), Instant::now())
                }
                Step::Pause(time) => {
                    self.request_topology();
                    tokio::time::sleep(time).await;
                    attempts.next(owner(), Instant::now())
                }
                Step::Finish(outcome) => return outcome,
            };
            step = next;
        }
    }

    /// Groups the events by room, because there is no order between rooms. The second result
    /// contains the place of each event.
    fn script(&self, batch: &[Waiting]) -> (Script<'_>, Vec<Place>) {
        let mut messages: Vec<(&RoomName, Encoder)> = Vec::new();
        let mut open: HashMap<&RoomName, usize> = HashMap::new();
        let mut places = Vec::with_capacity(batch.len());
        for Waiting { number, publish, .. } in batch {
            let size = EVENT_OVERHEAD + publish.event.len() + publish.payload.len();
            let fits = |index: &usize| {
                let encoder = &messages[*index].1;
                encoder.origin == publish.origin && encoder.len() + size <= MAX_BATCH_BYTES
            };
            let index = open.get(&publish.room).copied().filter(fits).unwrap_or_else(|| {
                messages.push((&publish.room, Encoder::new(publish.origin, &self.seal)));
                messages.len() - 1
            });
            open.insert(&publish.room, index);
            messages[index].1.push(*number, &publish.event, &publish.payload, publish.published_at);
            if let Some(trace) = publish.trace.as_deref() {
                messages[index].1.trace_last(*trace);
            }
            places.push(Place { message: index, event: messages[index].1.count - 1 });
        }
        let mut keys = Vec::with_capacity(messages.len() * 2);
        let mut arguments = Vec::with_capacity(3 + messages.len() * 7);
        let history_bytes = Value::Integer(i64::try_from(self.history_bytes).unwrap_or(i64::MAX));
        arguments.extend([millis(POSITION_AGE), millis(UNREAD_POSITION_AGE), history_bytes]);
        for (room, encoder) in messages {
            let retention = self.retention_of(room);
            let kept = if encoder.len() > MAX_KEPT_BYTES { 0 } else { retention.events };
            let (position, channel) = (self.keys.position(room), self.keys.channel(room));
            // While a slot is being moved, Redis rejects a script if one of its keys does not
            // exist.
            let history_key = if retention.events == 0 { position.clone() } else { self.keys.history(room) };
            keys.extend([position, history_key]);
            arguments.push(Value::from(&channel));
            arguments.push(format!(" {}:", encoder.origin).into());
            arguments.extend([encoder.last_number, encoder.count].map(|number| Value::Integer(number.cast_signed())));
            arguments.extend([Value::Integer(kept.into()), millis(retention.age)]);
            arguments.push(Value::Bytes(encoder.finish(&channel, &self.seal)));
        }
        (Script { text: PUBLISH, digest: &self.digest, keys, arguments }, places)
    }

    fn retention_of(&self, room: &RoomName) -> Retention {
        match room {
            room if room.starts_with(PROBES) => PROBE_RETENTION,
            room if room.is_of_nodes() => Retention::NONE,
            room => self.history.of(room),
        }
    }

    /// Returns the server that owns a room's slot.
    pub(crate) fn owner_of(&self, room: &RoomName) -> Option<Server> {
        self.queue.lock().owner_of(room)
    }

    /// Has the topology requested, because a server has redirected or failed a script.
    pub(crate) fn request_topology(&self) {
        self.topology_wanted.store(true, Ordering::Release);
    }

    /// Returns whether the topology must be requested, because a server has redirected or failed a
    /// publish.
    pub(crate) fn take_topology_wanted(&self) -> bool {
        self.topology_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn set_topology(&self, topology: Topology) {
        self.queue.lock().set_topology(topology);
    }

    /// Holds back all publishes until this time. Those that are under way are not affected.
    pub(crate) fn hold_until(&self, time: Instant) {
        self.queue.lock().hold_until(time);
    }

    /// Returns why a server does not accept publishes, or `None` if it does.
    pub(crate) fn is_down(&self, server: &Server) -> Option<String> {
        self.queue.lock().is_down(server).cloned()
    }

    /// Accepts no more publishes. Those that wait are still sent.
    pub(crate) fn close(&self) {
        self.queue.lock().close();
    }
}

/// Returns the span of a batch. It belongs to the trace of the first event that is traced, or is disabled.
fn batch_span(batch: &[Waiting]) -> Span {
    let Some(parent) = batch.iter().find_map(|waiting| waiting.publish.trace.as_deref()) else { return Span::none() };
    let span = debug_span!(
        target: CONTINUED, "redis publish", otel.kind = "client", db.system.name = "redis",
        db.operation.name = "EVALSHA", db.operation.batch.size = batch.len(),
    );
    continued(span, parent)
}

fn millis(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
