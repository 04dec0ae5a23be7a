//! Connections to backends over TCP, which do not wait for a backend to read a request that was
//! cancelled.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Uri;
use futures_util::future::BoxFuture;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use prometheus::Histogram;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::in_flight::Usage;

/// Opens connections for HTTP/1.1.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    stop_seconds: Histogram,
}

impl Connector {
    /// Observes how long it takes to close the connection of a request that was dropped.
    pub(crate) fn new(tcp: HttpConnector, stop_seconds: Histogram) -> Self {
        Self { tcp, stop_seconds }
    }
}

impl Service<Uri> for Connector {
    type Response = Socket;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = BoxFuture<'static, Result<Socket, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, stop_seconds) = (self.tcp.call(uri), self.stop_seconds.clone());
        Box::pin(async move { Ok(Socket { tcp: connecting.await?, usage: Arc::default(), stop_seconds }) })
    }
}

/// A TCP connection to a backend.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TokioIo<TcpStream>,
    usage: Arc<Usage>,
    stop_seconds: Histogram,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(dropped_at) = self.usage.dropped_at() {
            self.stop_seconds.observe(dropped_at.elapsed().as_secs_f64());
        }
    }
}

impl Socket {
    /// Turns a write that waits into an error if the request was dropped. The kernel then resets the
    /// connection, instead of holding what it has buffered until the backend reads it.
    fn check<T>(&self, context: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || !self.usage.is_dropped(context) {
            return written;
        }
        // This fails only if the connection has ended.
        let _ = self.tcp.inner().set_zero_linger();
        Poll::Ready(Err(cancelled()))
    }
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the request was cancelled")
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        self.tcp.connected().extra(Arc::clone(&self.usage))
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.usage.is_dropped(context) {
            return Poll::Ready(Err(cancelled()));
        }
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.check(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has nothing to flush, so this never waits.
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, parts);
        self.check(context, written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::Request;
    use bytes::Bytes;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use prometheus::HistogramOpts;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
    use tokio::net::TcpListener;

    use super::*;
    use crate::in_flight::{InFlight, RequestBody, Sent};

    /// Longer than any wait of these tests, on a busy machine, too.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// More than the kernel holds for both ends of a connection.
    const LARGE: usize = 32 << 20;

    struct Backend {
        client: Client<Connector, RequestBody>,
        listener: TcpListener,
    }

    impl Backend {
        async fn new() -> Self {
            let stop_seconds = Histogram::with_opts(HistogramOpts::new("stop_seconds", "for the test")).unwrap();
            let client =
                Client::builder(TokioExecutor::new()).build(Connector::new(HttpConnector::new(), stop_seconds));
            Self { client, listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
        }

        fn start(&self, body: Bytes) -> tokio::task::JoinHandle<u16> {
            let uri = format!("http://{}/echo", self.listener.local_addr().unwrap());
            let (request, in_flight) = InFlight::new(Request::post(uri).body(body).unwrap(), Sent::default());
            let response = self.client.request(request);
            tokio::spawn(async move {
                let status = response.await.unwrap().status().as_u16();
                in_flight.finish();
                status
            })
        }
    }

    /// Reads what arrives until it contains an empty line.
    async fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_the_backend_does_not_read_is_reset_when_it_is_cancelled() {
        let backend = Backend::new().await;
        let call = backend.start(Bytes::from(vec![0; LARGE]));
        let (mut stream, _) = backend.listener.accept().await.unwrap();
        read_head(&mut stream).await;
        call.abort();
        let error = tokio::time::timeout(PATIENCE, stream.ready(Interest::ERROR)).await;
        assert!(error.is_ok_and(|ready| ready.is_ok_and(|ready| ready.is_error())), "the connection is still open");
    }

    #[tokio::test]
    async fn a_request_that_the_backend_has_read_ends_in_order_when_it_is_cancelled() {
        let backend = Backend::new().await;
        let call = backend.start(Bytes::new());
        let (mut stream, _) = backend.listener.accept().await.unwrap();
        assert!(read_head(&mut stream).await.contains("content-length: 0\r\n"));
        call.abort();
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert_eq!(end.expect("the connection is still open").expect("there is no reset"), 0);
    }

    #[tokio::test]
    async fn requests_that_end_leave_their_connection_to_the_next_one() {
        let backend = Backend::new().await;
        let mut connection = None;
        for body in [Bytes::from_static(b"small"), Bytes::from(vec![0; LARGE])] {
            let len = body.len();
            let call = backend.start(body);
            if connection.is_none() {
                connection = Some(backend.listener.accept().await.unwrap().0);
            }
            let stream = connection.as_mut().unwrap();
            read_head(stream).await;
            tokio::io::copy(&mut stream.take(len as u64), &mut tokio::io::sink()).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            assert_eq!(tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap(), 204);
        }
    }
}
