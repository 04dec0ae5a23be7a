//! Accepting and serving HTTP, with deadlines that `axum::serve` does not have.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// How long a client may take for a request's head, from the connection's start or the last answer on.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take for its TLS handshake.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes, and the most headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

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

/// Accepts connections until the future is dropped, each served in a task of its own.
pub(crate) async fn accept(listener: &TcpListener, tls: Option<&TlsAcceptor>, app: &axum::Router) {
    let mut failing = false;
    loop {
        let accepted = listener.accept().await;
        let was_failing = std::mem::replace(&mut failing, accepted.is_err());
        match accepted {
            Ok((stream, peer)) => {
                // Nobody can reach the socket through TLS later; with Nagle's algorithm a second small write waits for
                // the client's acknowledgement, 40 ms mostly.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY was not set");
                }
                match tls {
                    None => tokio::spawn(serve(stream, peer, app.clone())),
                    Some(tls) => tokio::spawn(serve_tls(tls.accept(stream), peer, app.clone())),
                };
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

async fn serve_tls(handshake: tokio_rustls::Accept<TcpStream>, peer: SocketAddr, app: axum::Router) {
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => serve(stream, peer, app).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, app: axum::Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let mut app = app.clone();
        async move {
            request.extensions_mut().insert(ConnectInfo(peer));
            let response: Result<_, Infallible> = app.call(request.map(Body::new)).await;
            response
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "an HTTP connection failed");
    }
}
