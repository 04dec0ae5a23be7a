//! One HTTP connection, until it ends or is upgraded, with deadlines that `axum::serve` lacks.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use crate::places::Place;

/// How long a client may take to send a request's head, counted from the connection's start or the last response.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may take from its head to its response, body included. The slowest handlers, those that ask
/// other nodes, need a few seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to read a response. Without a limit, a client that sends requests and never reads keeps
/// its socket and the responses that wait for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes, and the most headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Serves requests until the connection ends, is upgraded, or exceeds a deadline or the number of requests. With the
/// deadlines, that number bounds how long a client can stay without an upgrade.
pub(crate) async fn serve<S>(place: &Place, stream: S, peer: SocketAddr, app: axum::Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // hyper itself limits the time for heads, the first one included.
    let deadline = Mutex::new(Instant::now() + REQUEST_TIMEOUT);
    let requests = AtomicUsize::new(0);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let (deadline, mut app) = (&deadline, app.clone());
        let is_last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= place.max_requests();
        *deadline.lock() = Instant::now() + REQUEST_TIMEOUT;
        async move {
            if !place.stop_waiting() {
                // The connection is displaced: nothing is handled on it any more.
                std::future::pending::<()>().await;
            }
            request.extensions_mut().insert(ConnectInfo(peer));
            let mut response = app.call(request.map(Body::new)).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                if is_last {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                place.start_waiting();
            }
            *deadline.lock() = Instant::now() + WRITE_TIMEOUT;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        biased; // a deadline that the connection moves is seen in the same poll
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "HTTP connection failed");
            }
        }
        () = passed(&deadline) => tracing::debug!(%peer, "HTTP connection timed out"),
    }
}

/// Waits until the current deadline passes. It must be polled after whatever moves the deadline.
async fn passed(deadline: &Mutex<Instant>) {
    let mut timer = pin!(sleep_until(*deadline.lock()));
    poll_fn(|cx| {
        let due = *deadline.lock();
        if due != timer.deadline() {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use axum::response::Response;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::places::tests::place;

    /// Nobody waits longer, in virtual time.
    const FOREVER: Duration = Duration::from_secs(3600);

    const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

    /// A client's end of a connection, and the task that serves the other end.
    fn connect() -> (DuplexStream, JoinHandle<()>) {
        let app = axum::Router::new()
            .route("/", get(async || "x".repeat(4096)))
            .route("/body", post(async |body: String| body))
            .route("/echo", get(upgrade));
        let (client, server) = tokio::io::duplex(1024);
        let served = async move { serve(&place().await, server, ([127, 0, 0, 1], 1).into(), app).await };
        (client, tokio::spawn(served))
    }

    /// Becomes an echo.
    async fn upgrade(request: axum::extract::Request) -> Response {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("the server upgrades");
            let (mut input, mut output) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut input, &mut output).await
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
        axum::response::IntoResponse::into_response((StatusCode::SWITCHING_PROTOCOLS, headers))
    }

    /// The virtual time until the connection has ended.
    async fn time_served(served: JoinHandle<()>) -> Duration {
        let started = Instant::now();
        tokio::time::timeout(FOREVER, served).await.expect("the connection ends").expect("no panic");
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_requests_and_never_reads_is_cut_off() {
        let (mut client, served) = connect();
        let sending = tokio::spawn(async move {
            while client.write_all(GET.as_bytes()).await.is_ok() {}
            client
        });
        let time = time_served(served).await;
        assert!(time >= WRITE_TIMEOUT && time < WRITE_TIMEOUT + HEADER_TIMEOUT, "{time:?}");
        drop(sending.await.expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_body_trickles_is_cut_off() {
        let (mut client, served) = connect();
        let head = "POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("the server reads");
        tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let time = time_served(served).await;
        assert!(time >= REQUEST_TIMEOUT && time < REQUEST_TIMEOUT + HEADER_TIMEOUT, "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_after_its_last_allowed_request() {
        let max_requests = place().await.max_requests();
        let (client, served) = connect();
        let (mut input, mut output) = tokio::io::split(client);
        tokio::spawn(async move { output.write_all(GET.repeat(2 * max_requests).as_bytes()).await });
        let mut responses = String::new();
        // It may end with an error, as requests that nobody reads are under way.
        let _ = tokio::time::timeout(FOREVER, input.read_to_string(&mut responses)).await.expect("the stream ends");
        assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), max_requests);
        assert_eq!(responses.matches("connection: close").count(), 1);
        time_served(served).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_has_no_deadline() {
        let (mut client, served) = connect();
        let head = "GET /echo HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("the server reads");
        time_served(served).await;
        tokio::time::sleep(FOREVER).await;
        client.write_all(b"still here").await.expect("the connection is open");
        let mut received = Vec::new();
        while !received.ends_with(b"still here") {
            assert!(client.read_buf(&mut received).await.expect("the connection is open") > 0);
        }
    }
}
