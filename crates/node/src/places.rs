//! A limit on open sockets that are not upgraded.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a connection waits for its client before it can be displaced: at least a round trip around the world.
/// Without it, in a storm of reconnects, clients would displace one another before their requests arrive. During a
/// flood of silent sockets, 64 places still admit 256 clients a second.
const MIN_WAIT: Duration = Duration::from_millis(250);

/// TLS handshakes that are under way at once. Each takes about a millisecond of a CPU, so in a storm of reconnects, a
/// larger number would make all of them so slow that they time out.
const MAX_HANDSHAKES: usize = 1024;

/// How long a handshake may take before it can be displaced. It has two round trips, and on a busy machine it waits for
/// the CPU time of those before it. During a flood of clients that stall, 1,024 clients a second are still admitted.
const MIN_HANDSHAKE: Duration = Duration::from_secs(1);

/// Requests that each listener serves on one connection. Clients open the public listener for a WebSocket; the few files
/// of the demo's page take a connection each, so none stays open without use. The internal listener serves API clients,
/// for which a new connection after so many requests costs nothing noticeable.
const MAX_REQUESTS_PUBLIC: usize = 1;
const MAX_REQUESTS_INTERNAL: usize = 100;

/// A listener's places for sockets that are not upgraded: such sockets can't use up the process' descriptors. When the
/// last place is taken, the connection that has waited longest for its client is closed, so a flood of idle sockets
/// displaces itself and not those who come later. While the requests of all connections are being handled, nothing is
/// accepted, and clients wait in the kernel's backlog.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    max_requests: usize,
    /// How long a connection waits for its client before it can be displaced.
    min_wait: Duration,
    free: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    taken: IntGauge,
    pub(crate) displaced: IntCounter,
}

/// The connections that wait for their clients: for a TLS handshake, for a request's head, or until a response is read.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<WaitingQueue>,
    added: Notify,
}

#[derive(Debug, Default)]
struct WaitingQueue {
    next: u64,
    /// In the order in which the waits began; at most one entry for each place.
    connections: BTreeMap<u64, WaitingConnection>,
}

#[derive(Debug)]
struct WaitingConnection {
    since: Instant,
    displaced: Arc<Notify>,
}

impl WaitingQueue {
    /// Removes the connection that has waited longest, if that is long enough; else returns when it will be.
    fn pop(&mut self, min_wait: Duration) -> Option<Result<WaitingConnection, Instant>> {
        let first = self.connections.first_entry()?;
        let due = first.get().since + min_wait;
        Some(if due <= Instant::now() { Ok(first.remove()) } else { Err(due) })
    }
}

impl Places {
    fn new(places: usize, max_requests: usize, min_wait: Duration, taken: IntGauge, displaced: IntCounter) -> Self {
        let free = Arc::new(Semaphore::new(places));
        Self { max_requests, min_wait, free, waiting: Arc::default(), taken, displaced }
    }

    /// Takes a place. If none is free, closes the connection that has waited longest for its client, as soon as
    /// one has waited long enough.
    pub(crate) async fn take(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        let mut free = pin!(Arc::clone(&self.free).acquire_owned());
        tokio::select! {
            biased;
            permit = &mut free => return permit,
            () = self.displace() => {}
        }
        free.await
    }

    async fn displace(&self) {
        loop {
            let longest = self.waiting.queue.lock().pop(self.min_wait);
            match longest {
                Some(Ok(connection)) => {
                    self.displaced.inc();
                    return connection.displaced.notify_one();
                }
                Some(Err(due)) => tokio::time::sleep_until(due).await,
                None => self.waiting.added.notified().await,
            }
        }
    }
}

/// One place, held while a socket is served over HTTP.
pub(crate) struct Place {
    places: Places,
    /// The key in [`WaitingQueue::connections`] of the current wait, or of the last one.
    wait: AtomicU64,
    displaced: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The connection waits for its client from the start.
    pub(crate) fn new(permit: OwnedSemaphorePermit, places: &Places) -> Self {
        places.taken.inc();
        let place =
            Self { places: places.clone(), wait: AtomicU64::default(), displaced: Arc::default(), _permit: permit };
        place.start_waiting();
        place
    }

    pub(crate) fn max_requests(&self) -> usize {
        self.places.max_requests
    }

    /// The connection waits for its client and may be displaced.
    pub(crate) fn start_waiting(&self) {
        let mut queue = self.places.waiting.queue.lock();
        let wait = queue.next;
        queue.next += 1;
        let connection = WaitingConnection { since: Instant::now(), displaced: Arc::clone(&self.displaced) };
        queue.connections.insert(wait, connection);
        self.wait.store(wait, Ordering::Relaxed);
        drop(queue);
        self.places.waiting.added.notify_one();
    }

    /// Waits until the connection must be closed to make room.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// The connection can't be displaced any longer. False if it already is: it is about to be closed.
    pub(crate) fn stop_waiting(&self) -> bool {
        self.places.waiting.queue.lock().connections.remove(&self.wait.load(Ordering::Relaxed)).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop_waiting();
        self.places.taken.dec();
    }
}

/// The places of a node.
pub(crate) struct NodePlaces {
    pub(crate) public: Places,
    pub(crate) internal: Places,
    /// For the TLS handshakes of the public listener.
    pub(crate) handshakes: Places,
}

/// The places of the public and the internal listener, with their metrics.
pub(crate) fn places([public, internal]: [usize; 2], registry: &Registry) -> Result<NodePlaces, prometheus::Error> {
    let gauge = |name, help| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["listener"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok::<_, prometheus::Error>(gauge)
    };
    let taken = gauge("roomcast_http_connections", "Open TCP connections that are not upgraded to WebSocket")?;
    let limit =
        gauge("roomcast_max_http_connections", "TCP connections that a listener serves at once without an upgrade")?;
    let displaced = IntCounterVec::new(
        Opts::new(
            "roomcast_http_connections_displaced_total",
            "TCP connections closed, while they waited for their client, to make room for new ones",
        ),
        &["listener"],
    )?;
    registry.register(Box::new(displaced.clone()))?;
    let handshakes = IntGauge::new("roomcast_tls_handshakes", "TLS handshakes that are under way")?;
    registry.register(Box::new(handshakes.clone()))?;
    let handshakes_displaced = IntCounter::new(
        "roomcast_tls_handshakes_displaced_total",
        "TLS handshakes closed, after their client was silent, to make room for others",
    )?;
    registry.register(Box::new(handshakes_displaced.clone()))?;
    let listener = |listener, places, max_requests| {
        limit.with_label_values(&[listener]).set(i64::try_from(places).unwrap_or(i64::MAX));
        let (taken, displaced) = (taken.with_label_values(&[listener]), displaced.with_label_values(&[listener]));
        Places::new(places, max_requests, MIN_WAIT, taken, displaced)
    };
    Ok(NodePlaces {
        public: listener("public", public, MAX_REQUESTS_PUBLIC),
        internal: listener("internal", internal, MAX_REQUESTS_INTERNAL),
        handshakes: Places::new(MAX_HANDSHAKES, 0, MIN_HANDSHAKE, handshakes, handshakes_displaced),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A free place of the internal listener.
    pub(crate) async fn place() -> Place {
        let places = places([1, 1], &Registry::new()).expect("the metrics are new").internal;
        Place::new(places.take().await.expect("the semaphore is open"), &places)
    }
}
