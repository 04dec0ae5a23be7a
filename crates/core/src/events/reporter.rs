//! The tasks that report a node's events to the store and deliver the events of the cluster.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::access::room_patterns::RoomPatterns;
use crate::events::delivery::{DELIVERY_TIMEOUT, Delivery};
use crate::events::event::{EventBatch, EventKind, EventKinds};
use crate::events::metrics::EventMetrics;
use crate::events::recorder::{EndedCall, Ending, Recorder};
use crate::events::store::{EventSink, EventStore, Reported, WaitingEvent};
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::unix_time::millis;

/// How often a node reports that it is alive.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long the store may take to reply.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait after a report has failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Which events a node reports, and to whom.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EventOptions {
    /// The kinds of events.
    pub kinds: EventKinds,
    /// The rooms with events of the kinds `occupied` and `vacated`.
    pub occupancy: RoomPatterns,
    /// Keeps the events.
    pub store: Arc<dyn EventStore>,
    /// Delivers the events.
    pub sink: Arc<dyn EventSink>,
}

impl EventOptions {
    /// Creates options.
    pub fn new(kinds: EventKinds, store: Arc<dyn EventStore>, sink: Arc<dyn EventSink>) -> Self {
        Self { kinds, occupancy: RoomPatterns::default(), store, sink }
    }
}

/// The lifecycle events of one node.
#[derive(Debug)]
pub struct Events {
    node: NodeId,
    kinds: EventKinds,
    recorder: Mutex<Recorder>,
    store: Arc<dyn EventStore>,
    sink: Arc<dyn EventSink>,
    /// Notified when there is something to report.
    recorded: Notify,
    /// Notified after each report.
    reported: Notify,
    deliverer: watch::Sender<Deliverer>,
    metrics: EventMetrics,
}

/// What the task that delivers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deliverer {
    Runs,
    /// It lets another node deliver, and ends.
    MustEnd,
    Ended,
}

impl Events {
    pub(crate) fn new(node: NodeId, options: EventOptions, metrics: EventMetrics) -> Self {
        let EventOptions { kinds, occupancy, store, sink } = options;
        let recorder = Mutex::new(Recorder::new(node, kinds, occupancy));
        let deliverer = watch::Sender::new(Deliverer::Runs);
        Self {
            node,
            kinds,
            recorder,
            store,
            sink,
            recorded: Notify::new(),
            reported: Notify::new(),
            deliverer,
            metrics,
        }
    }

    // === what happens ===

    pub(crate) fn connected(&self, connection: ConnectionId, user: Option<&UserId>) {
        self.record(|recorder, now| recorder.connected(connection, user, now));
    }

    pub(crate) fn disconnected(&self, connection: ConnectionId, ending: &Ending) {
        self.record(|recorder, now| recorder.disconnected(connection, ending, now));
    }

    pub(crate) fn joined(&self, connection: ConnectionId, room: &RoomName) {
        self.record(|recorder, now| recorder.joined(connection, room, now));
    }

    pub(crate) fn left(&self, connection: ConnectionId, room: &RoomName) {
        self.record(|recorder, now| recorder.left(connection, room, now));
    }

    /// Returns whether the ends of calls are reported.
    pub fn reports_calls(&self) -> bool {
        self.kinds.contains(EventKind::CallEnded)
    }

    /// Records that a call has ended.
    pub fn call_ended(&self, call: &EndedCall<'_>) {
        self.record(|recorder, now| recorder.call_ended(call, now));
    }

    fn record(&self, change: impl FnOnce(&mut Recorder, u64)) {
        change(&mut self.recorder.lock(), millis(SystemTime::now()));
        self.recorded.notify_one();
    }

    // === reports ===

    /// Reports to the store. Calls `close` for connections whose end was reported while the node
    /// counted as lost. Never returns.
    pub(crate) async fn report(&self, close: impl Fn(ConnectionId)) {
        let mut works = true;
        loop {
            let report = self.recorder.lock().next_report();
            match within(STORE_TIMEOUT, self.store.report(report)).await {
                Ok(reported) => {
                    if !std::mem::replace(&mut works, true) {
                        tracing::info!("lifecycle events are stored again");
                    }
                    self.on_reported(&reported, &close);
                    let recorded = self.recorded.notified();
                    if self.recorder.lock().is_applied() && reported.lost.is_none() {
                        let _ = tokio::time::timeout(REPORT_INTERVAL, recorded).await;
                    }
                }
                Err(reason) => {
                    self.metrics.report_failures.inc();
                    if std::mem::replace(&mut works, false) {
                        tracing::warn!(reason, "lifecycle events cannot be stored; the node keeps them for now");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn on_reported(&self, reported: &Reported, close: &impl Fn(ConnectionId)) {
        if reported.ended > 0 {
            tracing::warn!(ended = reported.ended, "reported the end of what a lost node had open");
        }
        let (ended, dropped) = {
            let mut recorder = self.recorder.lock();
            (recorder.on_reported(reported, millis(SystemTime::now())), recorder.dropped())
        };
        if reported.is_lost {
            let connections = ended.len();
            tracing::warn!(
                connections,
                "this node counted as lost; closing the connections that were reported as ended"
            );
        }
        ended.into_iter().for_each(close);
        self.metrics.ended_for_lost.inc_by(reported.ended);
        self.metrics.set_held(&reported.held);
        self.metrics.unrecorded.inc_by(dropped.saturating_sub(self.metrics.unrecorded.get()));
        self.reported.notify_waiters();
    }

    /// Waits until the store has everything that was recorded before. If this node delivers, another
    /// one may then do so.
    pub(crate) async fn flush(&self) {
        loop {
            let reported = self.reported.notified();
            if self.recorder.lock().is_applied() {
                break;
            }
            reported.await;
        }
        self.deliverer.send_if_modified(|deliverer| match deliverer {
            Deliverer::Runs => {
                *deliverer = Deliverer::MustEnd;
                true
            }
            Deliverer::MustEnd | Deliverer::Ended => false,
        });
        // The sender outlives this future.
        let _ = self.deliverer.subscribe().wait_for(|deliverer| *deliverer == Deliverer::Ended).await;
    }

    // === deliveries ===

    /// Delivers the events of the cluster, if no other node does. Returns after a
    /// [flush](Self::flush).
    pub(crate) async fn deliver(&self) {
        let mut delivery = Delivery::new(self.node);
        let mut deliverer = self.deliverer.subscribe();
        loop {
            let take = delivery.next_take(now());
            let wait = match within(STORE_TIMEOUT, self.store.take(take)).await {
                Ok(Some(events)) if events.is_empty() => delivery.on_nothing(now()),
                Ok(Some(events)) => self.deliver_batch(&mut delivery, events).await,
                Ok(None) => delivery.on_other_deliverer(),
                Err(_) => delivery.on_unavailable(),
            };
            let must_end = deliverer.wait_for(|deliverer| *deliverer == Deliverer::MustEnd);
            if tokio::time::timeout(wait, must_end).await.is_ok() {
                break;
            }
        }
        let _ = within(STORE_TIMEOUT, self.store.take(delivery.resign())).await;
        self.deliverer.send_replace(Deliverer::Ended);
    }

    async fn deliver_batch(&self, delivery: &mut Delivery, waiting: Vec<WaitingEvent>) -> Duration {
        let count = waiting.len();
        let batch = EventBatch::new(waiting.iter().map(|waiting| &waiting.event));
        let Some(batch) = batch.filter(|batch| batch.events > 0) else { return delivery.on_accepted(waiting) };
        let delivered = tokio::time::timeout(DELIVERY_TIMEOUT, self.sink.deliver(batch)).await;
        let late = |_| Err(format!("it did not respond within {DELIVERY_TIMEOUT:?}"));
        match delivered.unwrap_or_else(late) {
            Ok(()) => {
                self.metrics.accepted.inc_by(count as u64);
                delivery.on_accepted(waiting)
            }
            Err(reason) => {
                self.metrics.refused.inc_by(count as u64);
                tracing::warn!(
                    events = count,
                    reason,
                    "the backend has not accepted lifecycle events; they are sent again"
                );
                delivery.on_refused(now())
            }
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }
}

/// Returns the time of the runtime's clock, which tests can control.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn within<T, E: ToString>(time: Duration, replied: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(time, replied).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store did not reply within {time:?}")),
    }
}
