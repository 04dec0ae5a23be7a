//! Binding, accepting, and how many sockets may be open that are not upgraded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// A listener's places for sockets that are not upgraded. While all are taken, nothing is accepted and clients wait in
/// the kernel's backlog, so sockets that never become WebSockets can't use up the process' descriptors.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    taken: IntGauge,
}

/// One place, held while a socket is served over HTTP.
struct Place {
    _permit: OwnedSemaphorePermit,
    taken: IntGauge,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, places: &Places) -> Self {
        places.taken.inc();
        Self { _permit: permit, taken: places.taken.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.dec();
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
    Ok([("public", public), ("internal", internal)].map(|(listener, places)| {
        limit.with_label_values(&[listener]).set(i64::try_from(places).unwrap_or(i64::MAX));
        Places { free: Arc::new(Semaphore::new(places)), taken: taken.with_label_values(&[listener]) }
    }))
}

/// Accepts connections until the future is dropped, each served in a task of its own.
pub(crate) async fn accept(listener: &TcpListener, places: &Places, tls: Option<&TlsAcceptor>, app: &axum::Router) {
    let mut failing = false;
    while let Ok(permit) = Arc::clone(&places.free).acquire_owned().await {
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

/// Serves a connection in its place, until it ends or is upgraded.
async fn serve(stream: TcpStream, peer: SocketAddr, _place: Place, tls: Option<TlsAcceptor>, app: axum::Router) {
    let Some(tls) = tls else { return http::serve(stream, peer, app).await };
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => http::serve(stream, peer, app).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}
