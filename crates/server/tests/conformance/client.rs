//! A client that is no WebSocket client: it writes the bytes that a case gives it and reads frames.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame::Frame;

/// The opening handshake of RFC 6455's own example (section 1.3).
pub(crate) const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: roomcast.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
pub(crate) const ACCEPT: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Result<Self, String> {
        let (client, head) = Self::shake_hands(address, HANDSHAKE).await?;
        match head.starts_with("HTTP/1.1 101 ") && head.lines().any(|line| line.eq_ignore_ascii_case(ACCEPT)) {
            true => Ok(client),
            false => Err(format!("the opening handshake was answered {head:?}")),
        }
    }

    /// Sends a request, which lacks its empty line, and returns the head of the response.
    pub(crate) async fn shake_hands(address: &str, request: &str) -> Result<(Self, String), String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // Each write leaves as a packet of its own.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut client = Self { stream, received: Vec::new() };
        client.write(format!("{request}\r\n").as_bytes()).await;
        loop {
            if let Some(end) = client.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = client.received.drain(..end + 4).collect();
                return Ok((client, String::from_utf8_lossy(&head).into_owned()));
            }
            if !client.read().await? {
                return Err("the TCP connection ended during the opening handshake".into());
            }
        }
    }

    /// A write that fails is not the end of the case: the server may have closed already, and what it sent decides.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        tokio::task::yield_now().await;
    }

    /// The next frame; `None` at the end of the TCP connection.
    pub(crate) async fn receive(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = Frame::take(&mut self.received)? {
                return Ok(Some(frame));
            }
            if !self.read().await? {
                return match self.received.is_empty() {
                    true => Ok(None),
                    false => Err("the TCP connection ended within a frame".into()),
                };
            }
        }
    }

    pub(crate) async fn expect(&mut self, expected: &Frame) -> Result<(), String> {
        match self.receive().await? {
            Some(frame) if frame == *expected => Ok(()),
            Some(frame) => Err(format!("expected {} but received {}", expected.describe(), frame.describe())),
            None => Err(format!("expected {} but the TCP connection ended", expected.describe())),
        }
    }

    /// Whether anything arrived before the end.
    async fn read(&mut self) -> Result<bool, String> {
        let read = self.stream.read_buf(&mut self.received).await;
        read.map(|len| len > 0).map_err(|error| format!("the TCP connection was lost: {error}"))
    }
}
