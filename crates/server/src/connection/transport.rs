//! The byte stream under a connection.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// The stream that the HTTP server hands over after the upgrade.
#[derive(Debug)]
pub(crate) struct Transport {
    /// What the client sent immediately after its handshake. It is read first.
    early: Bytes,
    stream: Stream,
}

enum Stream {
    /// The bare socket. In this common case, it saves an allocation and an indirection.
    Tcp(TcpStream),
    /// TLS, a Unix socket, a simulated network, or a pipe to a test's client.
    Other(Box<dyn Io>),
}

/// A byte stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

impl Transport {
    pub(crate) fn new(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner();
                // The driver combines writes itself. If this fails, the connection is only slower.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was not set");
                }
                Self { early: unpinned(parts.read_buf), stream: Stream::Tcp(stream) }
            }
            Err(upgraded) => Self { early: Bytes::new(), stream: Stream::Other(Box::new(TokioIo::new(upgraded))) },
        }
    }

    /// A pipe in memory.
    pub(crate) fn pipe(stream: DuplexStream) -> Self {
        Self { early: Bytes::new(), stream: Stream::Other(Box::new(stream)) }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let len = self.early.len().min(buf.len());
            buf[..len].copy_from_slice(&self.early.split_to(len));
            self.early = unpinned(std::mem::take(&mut self.early));
            return Poll::Ready(Ok(len));
        }
        let mut buf = ReadBuf::new(buf);
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Stream::Other(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Flushes data that a lower layer, such as TLS, may hold.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Releases the HTTP server's buffer. Empty bytes may still refer to its 8 KiB, and keep them
/// allocated.
fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { bytes }
}
