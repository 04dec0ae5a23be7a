//! Binding and accepting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http;
use crate::places::{Place, Places};
use crate::proxy_protocol::ProxyProtocol;
use crate::tls::{self, CurrentTls};

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

/// How a listener serves the connections that it accepts.
pub(crate) struct Service {
    pub(crate) places: Places,
    /// The places for TLS handshakes.
    pub(crate) handshakes: Places,
    pub(crate) tls: CurrentTls,
    /// `None`: connections begin without a header of the PROXY protocol.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) app: axum::Router,
}

impl Service {
    /// A service without TLS and without the PROXY protocol.
    pub(crate) fn plain(places: Places, app: axum::Router) -> Arc<Self> {
        Arc::new(Self { handshakes: places.clone(), places, tls: tls::off(), proxy_protocol: None, app })
    }
}

/// Accepts connections until the future is dropped, each served in a task of its own.
pub(crate) async fn accept(listener: &TcpListener, service: &Arc<Service>) {
    let mut failing = false;
    while let Ok(permit) = service.places.take().await {
        let accepted = listener.accept().await;
        let was_failing = std::mem::replace(&mut failing, accepted.is_err());
        match accepted {
            Ok((stream, peer)) => {
                // Nobody can reach the socket through TLS later; with Nagle's algorithm a second small write waits for
                // the client's acknowledgement, 40 ms mostly.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
                }
                tokio::spawn(serve(stream, peer, Place::new(permit, &service.places), Arc::clone(service)));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted")
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "cannot accept connections; retrying");
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
async fn serve(stream: TcpStream, peer: SocketAddr, place: Place, service: Arc<Service>) {
    tokio::select! {
        () = serve_in(&place, stream, peer, &service) => {}
        () = place.displaced() => tracing::debug!(%peer, "closed an HTTP connection to make room for another"),
    }
}

async fn serve_in(place: &Place, mut stream: TcpStream, mut peer: SocketAddr, service: &Service) {
    // Boxed, so that connections without it do without its memory. The same holds for TLS.
    if let Some(proxy_protocol) = &service.proxy_protocol {
        match Box::pin(proxy_protocol.client(&mut stream, peer)).await {
            Some(client) => peer = client,
            None => return,
        }
    }
    let tls = service.tls.borrow().clone();
    match tls {
        None => http::serve(place, stream, peer, service.app.clone()).await,
        Some(tls) => Box::pin(serve_tls(place, stream, peer, tls, service)).await,
    }
}

async fn serve_tls(place: &Place, stream: TcpStream, peer: SocketAddr, tls: TlsAcceptor, service: &Service) {
    if let Some(stream) = shake_hands(stream, peer, &tls, &service.handshakes).await {
        // The wait for the request begins. A place that is displaced just now stays so.
        if place.stop_waiting() {
            place.start_waiting();
        }
        http::serve(place, stream, peer, service.app.clone()).await;
    }
}

/// Waits for a place among the TLS handshakes, and then for the handshake. `None` if it does not succeed.
async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsAcceptor,
    handshakes: &Places,
) -> Option<TlsStream<TcpStream>> {
    let place = Place::new(handshakes.take().await.ok()?, handshakes);
    tokio::select! {
        shaken = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)) => match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
        },
        () = place.displaced() => tracing::debug!(%peer, "closed a TLS handshake to make room for another"),
    }
    None
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use prometheus::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::places::places;

    /// No test waits longer for one thing.
    const DEADLINE: Duration = Duration::from_secs(20);

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
        let places = places([2, 2], &Registry::new()).expect("the metrics are new").internal;
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
            let service = Service::plain(places.clone(), app);
            async move { accept(&listener, &service).await }
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
