//! Finds out whether a backend notices that a request is cancelled.

use std::io;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, header};
use bytes::{Bytes, BytesMut};
use roomcast::{CallError, NodeId};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::Span;

use crate::client::{self, InvalidCaCertificates};
use crate::options::BackendOptions;
use crate::request::{self, Parts};

/// How long it may take to open the connection, and to write the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the response is held at once, in bytes.
const BUFFER: usize = 16 * 1024;

/// How a response begins, up to the end of its status: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// A call that is cancelled to find out whether the backend notices it.
///
/// Use a method that takes much longer than `cancel_after` and `patience` together. The request is
/// sent over HTTP/1.1, because the end of a stream of HTTP/2 cannot be observed from outside.
///
/// ```no_run
/// use std::time::Duration;
///
/// use roomcast_backends::{BackendOptions, CancelCheck, CancelFinding};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let check = CancelCheck {
///     options: BackendOptions::new("chat", "http://127.0.0.1:8080/rpc".parse()?),
///     method: "chat.summarize".to_owned(),
///     payload: "".into(),
///     cancel_after: Duration::from_secs(1),
///     patience: Duration::from_secs(5),
/// };
/// if let CancelFinding::Noticed { after } = check.run().await? {
///     println!("it closed the connection after {after:?}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct CancelCheck {
    /// Where the backend is, and how requests to it are signed. Time limits and HTTP/2 have no effect.
    pub options: BackendOptions,
    /// The method, which is appended to the path of the URL.
    pub method: String,
    /// The payload of the call.
    pub payload: Bytes,
    /// How long the request runs before it is cancelled.
    pub cancel_after: Duration,
    /// How long the backend has to notice the cancellation.
    pub patience: Duration,
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelFinding {
    /// The backend closed the connection after the cancellation. This does not show whether its
    /// handler has stopped: some servers, such as that of Node.js, close the connection in any case.
    Noticed {
        /// The time from the cancellation to the end of the connection.
        after: Duration,
    },
    /// The backend did not close the connection in time.
    Unnoticed,
    /// The backend ended the request before it was cancelled.
    EndedEarly {
        /// The status of the response, or `None` if there was no response.
        status: Option<u16>,
    },
}

/// Why a check has found nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CancelCheckError {
    /// The backend does not accept the connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The CA certificates cannot be used.
    #[error(transparent)]
    CaCertificates(#[from] InvalidCaCertificates),
    /// The request cannot be created.
    #[error("{}", .0.message)]
    Request(CallError),
    /// The connection was lost while the request was written.
    #[error("cannot send the request: {0}")]
    Send(io::Error),
}

impl CancelCheck {
    /// Sends the request, cancels it, and waits for its end.
    ///
    /// # Errors
    /// Returns [`CancelCheckError`] if the request cannot be sent.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection closes.
    pub async fn run(&self) -> Result<CancelFinding, CancelCheckError> {
        let url = &self.options.url;
        // The brackets of an IPv6 address belong to the URL only.
        let host = url.host().trim_start_matches('[').trim_end_matches(']');
        let connecting = in_time(TcpStream::connect((host, url.port())));
        let tcp = connecting.await.map_err(CancelCheckError::Connect)?;
        if !url.is_https() {
            return self.run_over(tcp).await;
        }
        let tls = client::tls(self.options.ca_certificates.as_deref())?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| CancelCheckError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(std::sync::Arc::new(tls));
        let tls = in_time(connector.connect(name, tcp)).await.map_err(CancelCheckError::Tls)?;
        self.run_over(tls).await
    }

    async fn run_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
    ) -> Result<CancelFinding, CancelCheckError> {
        let request = self.request().map_err(CancelCheckError::Request)?;
        in_time(stream.write_all(&written(&request))).await.map_err(CancelCheckError::Send)?;
        let mut response = Response { start: BytesMut::new(), buffer: vec![0; BUFFER] };
        if response.ends_before(&mut stream, Instant::now() + self.cancel_after).await {
            return Ok(CancelFinding::EndedEarly { status: response.status() });
        }
        let cancelled = Instant::now();
        // As when a node closes the connection, the backend receives the end of the stream. The other
        // direction stays open, and shows when the backend ends the request.
        let deadline = cancelled + self.patience;
        let has_ended = match timeout_at(deadline, stream.shutdown()).await {
            Ok(Ok(())) => response.ends_before(&mut stream, deadline).await,
            // The backend has closed the connection at the same moment.
            Ok(Err(_)) => true,
            Err(_) => false,
        };
        Ok(if has_ended { CancelFinding::Noticed { after: cancelled.elapsed() } } else { CancelFinding::Unnoticed })
    }

    fn request(&self) -> Result<Request<Bytes>, CallError> {
        let node = NodeId::random();
        let id = format!("{node}-check");
        let mut headers = HeaderMap::new();
        // The backend closes the connection at the end of its response.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        request::identify_call(&id, &mut headers)?;
        let parts = Parts {
            method: &self.method,
            headers,
            body: self.payload.clone(),
            id: &id,
            node,
            timeout: self.cancel_after + self.patience,
            timestamp: request::now_unix(),
        };
        request::build(&self.options, parts, &Span::none())
    }
}

/// Returns a request as it is written to a connection.
fn written(request: &Request<Bytes>) -> Vec<u8> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let len = request.body().len();
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n").into_bytes();
    for (name, value) in request.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(request.body());
    bytes
}

async fn in_time<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT_TIMEOUT, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A response, of which only the status is kept.
struct Response {
    start: BytesMut,
    buffer: Vec<u8>,
}

impl Response {
    /// Reads until the connection ends or the time is over. Returns whether it has ended.
    async fn ends_before(&mut self, stream: &mut (impl AsyncRead + Unpin), deadline: Instant) -> bool {
        loop {
            match timeout_at(deadline, stream.read(&mut self.buffer)).await {
                Err(_) => return false,
                // A lost connection has ended, too.
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(len)) => {
                    let missing = STATUS_LINE.saturating_sub(self.start.len());
                    self.start.extend_from_slice(&self.buffer[..len.min(missing)]);
                }
            }
            // A backend that never stops sending is always ready to be read.
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    fn status(&self) -> Option<u16> {
        std::str::from_utf8(&self.start).ok()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
    }
}
