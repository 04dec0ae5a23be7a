//! Binding and accepting, with a limit on open sockets that are not upgraded.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::http;

/// How long a client may take for its TLS handshake.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that the kernel completes before they are accepted: a storm of reconnects fits in it.
const BACKLOG: i32 = 4096;

/// After an accept that failed for want of descriptors or memory: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds without starting to accept.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How long a connection waits for its client before it can be displaced: at least a round trip around the world.
/// Without it, in a storm of reconnects, clients would displace one another before their requests arrive. During a
/// flood of silent sockets, 64 places still admit 256 clients a second.
const MIN_WAIT: Duration = Duration::from_millis(250);

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
    free: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    taken: IntGauge,
    displaced: IntCounter,
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
    fn pop(&mut self) -> Option<Result<WaitingConnection, Instant>> {
        let first = self.connections.first_entry()?;
        let due = first.get().since + MIN_WAIT;
        Some(if due <= Instant::now() { Ok(first.remove()) } else { Err(due) })
    }
}

impl Places {
    /// Takes a place. If none is free, closes the connection that has waited longest for its client, as soon as
    /// one has waited for [`MIN_WAIT`].
    async fn take(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
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
            let longest = self.waiting.queue.lock().pop();
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
    fn new(permit: OwnedSemaphorePermit, places: &Places) -> Self {
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

/// The places of the public and the internal listener, with their metrics.
pub(crate) fn places([public, internal]: [usize; 2], registry: &Registry) -> Result<[Places; 2], prometheus::Error> {
    let gauge = |name, help| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["listener"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok::<_, prometheus::Error>(gauge)
    };
    let taken = gauge("roomcast_http_connections", "Open sockets that are not upgraded to a WebSocket")?;
    let limit = gauge("roomcast_max_http_connections", "Sockets that may be open without being upgraded")?;
    let displaced = IntCounterVec::new(
        Opts::new("roomcast_http_connections_displaced_total", "Connections closed to make room for new ones"),
        &["listener"],
    )?;
    registry.register(Box::new(displaced.clone()))?;
    let listeners = [("public", public, MAX_REQUESTS_PUBLIC), ("internal", internal, MAX_REQUESTS_INTERNAL)];
    Ok(listeners.map(|(listener, places, max_requests)| {
        limit.with_label_values(&[listener]).set(i64::try_from(places).unwrap_or(i64::MAX));
        Places {
            max_requests,
            free: Arc::new(Semaphore::new(places)),
            waiting: Arc::default(),
            taken: taken.with_label_values(&[listener]),
            displaced: displaced.with_label_values(&[listener]),
        }
    }))
}

/// Accepts connections until the future is dropped, each served in a task of its own.
pub(crate) async fn accept(listener: &TcpListener, places: &Places, tls: Option<&TlsAcceptor>, app: &axum::Router) {
    let mut failing = false;
    while let Ok(permit) = places.take().await {
        let accepted = listener.accept().await;
        let was_failing = std::mem::replace(&mut failing, accepted.is_err());
        match accepted {
            Ok((stream, peer)) => {
                // Nobody can reach the socket through TLS later; with Nagle's algorithm a second small write waits for
                // the client's acknowledgement, 40 ms mostly.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY was not set");
                }
                tokio::spawn(serve(stream, peer, Place::new(permit, places), tls.cloned(), app.clone()));
            }
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection was not accepted"),
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "connections can't be accepted; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the client that just came is the one to blame, not the system.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves a connection in its place, until it ends, is upgraded, or is displaced.
async fn serve(stream: TcpStream, peer: SocketAddr, place: Place, tls: Option<TlsAcceptor>, app: axum::Router) {
    tokio::select! {
        () = serve_in(&place, stream, peer, tls, app) => {}
        () = place.displaced.notified() => tracing::debug!(%peer, "an HTTP connection was closed to make room"),
    }
}

async fn serve_in(place: &Place, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, app: axum::Router) {
    let Some(tls) = tls else { return http::serve(place, stream, peer, app).await };
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            // The wait for the request begins. A place that is displaced just now stays so.
            if place.stop_waiting() {
                place.start_waiting();
            }
            http::serve(place, stream, peer, app).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// No test waits longer for one thing.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A free place of the internal listener.
    pub(crate) async fn place() -> Place {
        let [_, places] = places([1, 1], &Registry::new()).expect("the metrics are new");
        Place::new(places.take().await.expect("the semaphore is open"), &places)
    }

    async fn connect(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the connection is open");
        stream
    }

    async fn received(stream: &mut TcpStream) -> String {
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer));
        read.await.expect("the connection is closed").expect("in an orderly way");
        answer
    }

    #[tokio::test]
    async fn a_connection_makes_room_while_it_waits_for_its_client_and_not_while_its_request_is_handled() {
        let [_, places] = places([2, 2], &Registry::new()).expect("the metrics are new");
        let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (started, finish) = (Arc::clone(&started), Arc::clone(&finish));
            async move || {
                started.notify_one();
                finish.notified().await;
                "handled"
            }
        };
        let app = axum::Router::new().route("/", get(async || "fast")).route("/slow", get(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn({
            let places = places.clone();
            async move { accept(&listener, &places, None, &app).await }
        });

        let mut handled = connect(address, "/slow").await;
        tokio::time::timeout(DEADLINE, started.notified()).await.expect("it is handled");
        let mut silent = TcpStream::connect(address).await.expect("the listener accepts");
        assert_eq!(received(&mut silent).await, "", "it takes the last place and waits longest");
        assert_eq!(places.displaced.get(), 1);

        // Now requests are handled in both places.
        let _handled_too = connect(address, "/slow").await;
        tokio::time::timeout(DEADLINE, started.notified()).await.expect("it is handled");
        let mut last = connect(address, "/").await;
        finish.notify_one();
        assert!(received(&mut handled).await.ends_with("handled"), "it is answered, then closed for the next one");
        assert!(received(&mut last).await.ends_with("fast"), "it is answered, then waits longest");
        assert_eq!(places.displaced.get(), 3);
        accepting.abort();
    }
}
