//! One HTTP connection, up to its end or its upgrade, with deadlines that `axum::serve` does not have.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

/// How long a client may take for a request's head, from the connection's start or the last response on.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes, and the most headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Serves requests until the connection ends, is upgraded, or takes too long for a request's head.
pub(crate) async fn serve<S>(stream: S, peer: SocketAddr, app: axum::Router)
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
